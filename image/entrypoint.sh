#!/bin/sh
# How the image interprets its arguments:
#   --config-file FILE ...    one run: main.py
#   repro/aggregate.py ...    any script
#   python ..., sh ...        any other command, such as a worker of a cluster
# A script is always the image's own, even in a checkout, because records name the image. A .yaml file is the image's
# own if the working folder has no such file.
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
"$home/repro/aggregate.py") # its default folder for tables is inside the image, which is read-only
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
