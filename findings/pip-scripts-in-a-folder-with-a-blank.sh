#!/usr/bin/env bash
# In an environment whose path has a blank, the commands that pip installs are shell
# scripts: their first line names /bin/sh, and the second hands over to Python.
#
# Expected: a first line that names the environment's Python, as everywhere else.
# Seen (pip 26.1, setuptools' and pip's own commands): the kernel cannot start
# `#!/a b/python`, so pip writes a file that is valid shell and valid Python. Who
# looks at the first line to learn what will run sees a shell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
first_lines() { # FOLDER
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check pip==26.1
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps wheel==0.45.1
    head -n 2 "$1/bin/wheel"
}
plain=$(first_lines plain)
blank=$(first_lines "with blank")
printf 'plain path:\n%s\n\npath with a blank:\n%s\n' "$plain" "$blank"
[[ $(head -n 1 <<<"$plain") == "#!$folder/plain/bin/python"* ]]
[[ $(head -n 1 <<<"$blank") == "#!/bin/sh" ]]
[[ $(tail -n 1 <<<"$blank") == "'''exec' \"$folder/with blank/bin/python"* ]]
with_blank=$("with blank/bin/wheel" version)
[[ $with_blank == *0.45.1* ]]   # and it runs
