#!/bin/sh
# Runs every line of verdicts.txt that contains a word, and compares: ./check.sh [word]
# A line is a model, its verdict, the states that were looked at, its flags. The verdict is "ok", or the property that the counterexample breaks;
# of a run that is ok the states have to be the same too, since a model that became smaller proves less. -w writes what was found.
cd "$(dirname "$0")" || exit 1
for tool in spin gcc; do
	command -v $tool >/dev/null || { echo "skipped: the models need $tool (on Debian: apt install spin gcc)"; exit 0; }
done
here=$PWD; tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
cp ./*.pml ./*.h "$tmp"; cd "$tmp" || exit 1
write=; [ "$1" = -w ] && { write=1; shift; }
bad=0 ran=0
while read -r model want states flags; do
	line="$model $want $states${flags:+ $flags}"
	case $line in '' | ' '* | '#'*) [ $write ] && echo "$line" | sed 's/ *$//' >>got; continue ;; *"$1"*) ;; *) [ $write ] && echo "$line" >>got; continue ;; esac
	ran=1 opt=-O0; [ "$want" = ok ] && opt=-O1 # what ends early is compiled longer than it runs
	# shellcheck disable=SC2086 # they are several
	spin -a $flags "$model.pml" >out && gcc $opt -w -DSAFETY -DCOLLAPSE -DNOREDUCE -DMEMLIM=900 -o pan pan.c || { cat out; exit 1; }
	./pan -E -m400000 -w22 >out 2>&1
	found=$(awk '/states, stored/ {print $1}' out)
	verdict=$(sed -nE 's/.*assertion violated .*\b([A-Z][0-9])\|\|.*/\1/p' out)
	if [ -z "$verdict" ]; then
		verdict=unfinished
		grep -q 'errors: 0' out && ! grep -qE 'Search not completed|max search depth|out of memory' out && verdict=ok
	fi
	echo "$model $verdict $found${flags:+ $flags}" | tee -a got
	if [ "$verdict" != "$want" ] || [ "$verdict" = ok ] && [ "$found" != "$states" ]; then
		bad=1; echo "  DIFFERENT: it was $want with $states states"
	fi
done <"$here/verdicts.txt"
[ $ran = 1 ] || { echo "no line of verdicts.txt has \"$1\""; exit 1; }
[ $write ] && { cp got "$here/verdicts.txt"; exit 0; }
[ $bad = 0 ] && echo "all verdicts are as they were"
exit $bad
