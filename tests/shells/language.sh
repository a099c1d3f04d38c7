# What a shell does by itself: variables, functions, subshells, substitutions,
# here-documents, redirections, exit statuses, traps.
value=outer
(value=inner; echo "$value"); echo "$value"
twice() { echo "$1$1"; return 3; }
twice ab; echo "status $?"
echo "$(echo nested $(echo deeper))"
for i in 1 2 3; do [ "$i" -eq 2 ] && continue; echo "i=$i"; done
i=0; while [ $i -lt 3 ]; do i=$((i + 1)); done; echo $i
case abcdef in a*f) echo matched;; *) echo other;; esac
cat <<END
here $value $((6 * 7))
END
cat <<'END'
not $value
END
echo out; echo err >&2
{ echo one; echo two >&2; } 2>&1 | sort
false || echo 'or'; true && echo 'and'; ! true; echo $?
set -- a 'b c' d; echo $#; for word in "$@"; do echo "[$word]"; done
unset nothing; echo "${nothing:-default} ${value#ou} ${value%er} ${#value}"
exec 5>/tmp/language-$$; echo through five >&5; exec 5>&-
cat /tmp/language-$$; rm /tmp/language-$$
trap 'echo trapped' USR1; kill -USR1 $$; echo after
trap 'echo leaving' EXIT
(exit 7); echo $?
sh_pid=$$; (echo $(( sh_pid == $$ )))
sleep 0.1 & wait $!; echo "waited $?"
(sleep 100) & job=$!; kill $job; wait $job; echo "killed $?"
echo a | { read -r x; echo "read $x"; }
yes | head -n 2
true | false; echo $?
ulimit -c 0; ulimit -c
umask 027; umask
exit 5
