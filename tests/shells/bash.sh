# What bash has beyond that: arrays, process substitution, coprocesses.
set -o pipefail
list=(one two "three four"); echo "${#list[@]} ${list[2]} ${list[@]:1:1}"
declare -A map=([a]=1 [b]=2); for key in $(printf '%s\n' "${!map[@]}" | while read -r k; do echo "$k"; done); do ((sum += map[$key])); done; echo $sum
while read -r line; do echo "got $line"; done < <(printf '%s\n' x y)
read -r first rest <<<'first of many'; echo "$first|$rest"
[[ abc123 =~ ([a-z]+)([0-9]+) ]] && echo "${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
coproc while read -r line; do echo "echo $line"; done
echo hello >&"${COPROC[1]}"; read -r answer <&"${COPROC[0]}"; echo "$answer"
kill "$COPROC_PID"; wait "$COPROC_PID" 2>/dev/null
printf '%05d %x %s\n' 42 255 done
echo {1..5} {a..c}
false | true; echo $?
time_is() { local -n target=$1; target=set; }; time_is flag; echo $flag
mapfile -t lines < <(printf '1\n2\n3\n'); echo ${#lines[@]}
(trap 'echo term; exit 3' TERM; kill -TERM $BASHPID; echo not here); echo $?
for ((i = 0; i < 6; i++)); do (exit $((i % 3))) || ((failures++)); done; echo $failures
for n in 1 2 3; do (echo "child $n" >${TMPDIR:-/tmp}/bash-$$-$n) & done; wait
for n in 1 2 3; do read -r line <${TMPDIR:-/tmp}/bash-$$-$n; echo "$line"; done
exit 6
