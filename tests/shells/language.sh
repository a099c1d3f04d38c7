# What a shell does by itself, without any tool: variables, functions, subshells,
# substitutions, here-documents, redirections, exit statuses, traps, jobs.
value=outer
(value=inner; echo "$value"); echo "$value"
show() { while IFS= read -r line; do echo "$line"; done; }
twice() { echo "$1$1"; return 3; }
twice ab; echo "status $?"
echo "$(echo nested $(echo deeper))"
for i in 1 2 3; do [ "$i" -eq 2 ] && continue; echo "i=$i"; done
i=0; while [ $i -lt 3 ]; do i=$((i + 1)); done; echo $i
case abcdef in a*f) echo matched;; *) echo other;; esac
show <<END
here $value $((6 * 7))
END
show <<'END'
not $value
END
{ echo one; echo two >&2; } 2>&1 | show
false || echo 'or'; true && echo 'and'; ! true; echo $?
set -- a 'b c' d; echo $#; for word in "$@"; do echo "[$word]"; done
unset nothing; echo "${nothing:-default} ${value#ou} ${value%er} ${#value}"
exec 5>${TMPDIR:-/tmp}/language-$$; echo through five >&5; exec 5>&-
show <${TMPDIR:-/tmp}/language-$$; : >${TMPDIR:-/tmp}/language-$$; [ -s ${TMPDIR:-/tmp}/language-$$ ] || echo empty
trap 'echo trapped' USR1; kill -USR1 $$; echo after
trap 'echo leaving' EXIT
(exit 7); echo $?
sh_pid=$$; (echo $((sh_pid == $$)))
(exit 4) & wait $!; echo "waited $?"
(while :; do :; done) & job=$!; kill -KILL $job; wait $job 2>/dev/null; echo "killed $?"
echo a | { read -r x; echo "read $x"; }
while :; do echo y 2>/dev/null || break; done | { read -r x; echo "$x"; }
true | false; echo $?
ulimit -c 0; ulimit -c
umask 027; umask
exit 5
