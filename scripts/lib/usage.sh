# shellcheck shell=bash
# The comment at the top of a script says how it is used. These print it, without the marks.

# usage: prints the comment and ends the script with 2.
usage() {
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

# asked_for_help "$@": the same, but successful, where the first word is -h or --help.
asked_for_help() {
  case ${1:-} in
    -h | --help) (usage) 2>&1 || exit 0 ;;
  esac
}

# plain_path NAME VALUE: ends the script with 2 if VALUE has a character that Hydra's command line can't take.
plain_path() {
  local LC_ALL=C
  [[ $2 =~ ^[A-Za-z0-9/._+@%:\ -]+$ ]] && return
  echo "$0: $1=$2: name a path of letters without accents, digits, spaces and /._+@%:- only;" \
    "Hydra's command line takes no others" >&2
  exit 2
}

# whole_number NAME VALUE: ends the script with 2 unless VALUE is a whole number, 1 or more.
whole_number() {
  [[ $2 =~ ^[1-9][0-9]*$ ]] && return
  echo "$0: $1=$2: a whole number, 1 or more, is needed" >&2
  exit 2
}
