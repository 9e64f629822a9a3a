package compose

import "flag"

var updateDocs = flag.Bool("docs", false, "write the table of fields into docs/compose.md")
