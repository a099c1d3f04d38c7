# Tools that are part of busybox, in pipes.
folder=$(mktemp -d /tmp/shell-XXXXXX) && cd "$folder" || exit 9
seq 1 200 | sed 's/^/line /' >numbers
wc -l <numbers
sort -r numbers | head -n 3
grep -c 7 numbers
awk '{ sum += $2 } END { print sum }' numbers
cut -d ' ' -f 2 numbers | tr '0-9' 'a-j' | tail -n 2
mkdir -p deep/er/est && cp numbers deep/er/est/copy && mv deep/er deep/moved
find . -type f | sort
cmp numbers deep/moved/est/copy && echo same
md5sum numbers | cut -d ' ' -f 1
printf 'b\na\nc\na\n' | sort -u | xargs echo
printf '%s\n' one two three | while read -r word; do echo "<$word>"; done
dd if=/dev/zero bs=1k count=64 2>/dev/null | wc -c
cd / && rm -r "$folder" && [ ! -e "$folder" ] && echo gone
