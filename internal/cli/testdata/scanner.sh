#!/bin/sh
# Another scanner: it records its arguments, one a line, and says what FOUND holds.
for a in "$@"; do printf '%s\n' "$a" >>"$RECORD"; done
if [ -n "$FAIL" ]; then echo "first line" >&2; echo "$FAIL" >&2; exit 3; fi
if [ -n "$FLOOD" ]; then exec cat /dev/zero; fi
printf '%s' "$FOUND"
