# Tools that are part of busybox, on temporary files.
folder=$(mktemp -d /tmp/shell-XXXXXX) && cd "$folder" || exit 9
seq 1 200 >numbers && mkdir -p deep/er && cp numbers deep/er/copy
ln -s numbers link && readlink link && cat link | head -n 1
ln numbers hard && stat -c '%h %s' numbers
chmod 640 numbers && ls -l numbers | cut -c 1-10
tar -cf all.tar deep link && mkdir out && tar -xf all.tar -C out && find out | sort
gzip -c numbers | gunzip | cmp - numbers && echo unpacked
(cd deep && pwd | sed "s,$folder,here,")
echo text | tee first second >/dev/null && cat first second
diff first second && echo equal
rm -r deep out link hard && ls
rmdir "$folder" 2>/dev/null || echo 'not empty'
cd / && rm -r "$folder" && [ ! -e "$folder" ] && echo gone
