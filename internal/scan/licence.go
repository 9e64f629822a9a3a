package scan

import "strings"

// known are the identifiers of SPDX' list that packages name most. What is not among
// them is carried as text, which is never wrong.
var known = func() map[string]bool {
	ids := map[string]bool{}
	for id := range strings.FieldsSeq(`0BSD AFL-2.1 AGPL-3.0-only AGPL-3.0-or-later Apache-1.1 Apache-2.0 Artistic-1.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSD-4-Clause
		BSL-1.0 BlueOak-1.0.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CDDL-1.0 CDDL-1.1 EPL-1.0 EPL-2.0 GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later
		ISC LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later MIT MIT-0 MPL-1.1 MPL-2.0 NCSA OFL-1.1 OpenSSL PHP-3.01 PSF-2.0 PostgreSQL
		Python-2.0 Ruby Unlicense Vim W3C WTFPL X11 Zlib ZPL-2.1 bzip2-1.0.6 curl libtiff`) {
		ids[id] = true
	}
	return ids
}()
