#!/bin/sh
# What the image does with its arguments:
#   --config-file FILE ...    one run: main.py
#   repro/aggregate.py ...    any script
#   python ..., sh ...        any other command, such as a worker of a cluster
# A script of the image is the image's own even in a checkout, for its records name the image; a .yaml is the image's own
# where there is none below the working folder.
home=/opt/seval
left=$#
while [ "$left" -gt 0 ]; do
  word=$1
  shift
  case $word in
  *.yaml) if [ ! -e "$word" ] && [ -e "$home/$word" ]; then word=$home/$word; fi ;;
  *.py) if [ -e "$home/$word" ]; then word=$home/$word; fi ;;
  esac
  set -- "$@" "$word"
  left=$((left - 1))
done
case ${1-} in
"$home/repro/aggregate.py") # its own place for tables is in the image, which cannot be written
  case " $* " in
  *" --out "* | *" --out="* | *" --help "* | *" -h "*) ;;
  *) set -- "$@" --out paper_tables ;;
  esac
  exec python "$@"
  ;;
*.py) exec python "$@" ;;
"" | -*) exec python "$home/main.py" "$@" ;;
*)
  if command -v "$1" >/dev/null; then exec "$@"; fi
  exec python "$home/main.py" "$@" ;; # KEY VALUE pairs without a configuration file
esac
