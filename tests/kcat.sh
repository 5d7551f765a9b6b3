#!/usr/bin/env bash
# kcat against the broker at $BOOTSTRAP: metadata, produce, consume, keys, headers, offsets by timestamp.
# Prints one line per check and `kcat: N passed, N failed`; exits 1 when one failed.
set -uo pipefail

: "${BOOTSTRAP:?host:port of a running broker}"
work=$(mktemp -d)
text=$(realpath "$0")
start=$(($(date +%s%3N) - 1000))
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0

check() { # NAME EXPECTED GOT
    if [ "$2" == "$3" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED %s\n  expected: %.300s\n  got:      %.300s\n' "$1" "$2" "$3"
    fi
}

run() { timeout 180 kcat -b "$BOOTSTRAP" -m 30 "$@" 2>>errors; }
consume() { run -C -q -e "$@"; }

# Creates the topic by producing to it, then asks what the cluster is.
printf 'one\ntwo\nthree\n' | run -P -t kcat-plain -p 0
check 'produced lines come back' $'one\ntwo\nthree' "$(consume -t kcat-plain -p 0 -o beginning)"
check 'metadata names the broker' 1 "$(run -L | grep -c "broker .* at $BOOTSTRAP")"
check 'metadata names the topic' 1 "$(run -L -t kcat-plain | grep -c 'topic "kcat-plain" with 1 partitions')"
check 'metadata as JSON' kcat-plain "$(run -L -J -t kcat-plain | python3 -c 'import json, sys; print(json.load(sys.stdin)["topics"][0]["topic"])')"

# -o: from an absolute offset, from the end backwards, a count.
check 'from an offset' $'two\nthree' "$(consume -t kcat-plain -p 0 -o 1)"
check 'the last one' three "$(consume -t kcat-plain -p 0 -o -1)"
check 'a count' one "$(consume -t kcat-plain -p 0 -o beginning -c 1)"
check 'every partition' $'one\ntwo\nthree' "$(consume -t kcat-plain -o beginning)"

# Keys, headers, nulls.
printf 'k1:v1\nk2:\n:v3\n' | run -P -t kcat-keys -p 0 -K: -Z -H name=value -H other=
check 'keys, values, nulls' $'k1|2|v1|2\nk2|2||-1\n|-1|v3|2' "$(consume -t kcat-keys -p 0 -o beginning -f '%k|%K|%s|%S\n')"
check 'headers' $'name=value,other=\nname=value,other=\nname=value,other=' "$(consume -t kcat-keys -p 0 -o beginning -f '%h\n')"
check 'topic, partition, offset' $'kcat-keys 0 0\nkcat-keys 0 1\nkcat-keys 0 2' "$(consume -t kcat-keys -p 0 -o beginning -f '%t %p %o\n')"

# A file as one message, compressed, byte for byte.
head -c 900000 /dev/urandom >big
for codec in none gzip snappy lz4 zstd; do
    run -P -t "kcat-$codec" -p 0 -z "$codec" big
    run -P -t "kcat-$codec" -p 0 -z "$codec" -l "$text"
    consume -t "kcat-$codec" -p 0 -o beginning -c 1 -D '' >back
    check "$codec: a file" "$(sha256sum <big)" "$(sha256sum <back)"
    consume -t "kcat-$codec" -p 0 -o 1 >back
    # kcat sends nothing for an empty line.
    check "$codec: lines" "$(grep -v '^$' "$text" | sha256sum)" "$(grep -v '^$' back | sha256sum)"
done

# Many records, idempotent, every acks.
seq 1 20000 >numbers
for acks in 0 1 all; do
    run -P -t "kcat-acks-$acks" -p 0 -X acks="$acks" -l numbers
    for _ in $(seq 60); do # acks=0 says nothing of when
        consume -t "kcat-acks-$acks" -p 0 -o beginning -c 20000 >back
        [ "$(wc -l <back)" -lt 20000 ] || break
        sleep 0.5
    done
    check "acks=$acks" "$(sha256sum <numbers)" "$(sha256sum <back)"
done
run -P -t kcat-idempotent -p 0 -X enable.idempotence=true -l numbers
consume -t kcat-idempotent -p 0 -o beginning >back
check 'idempotent' "$(sha256sum <numbers)" "$(sha256sum <back)"

# Offsets by timestamp.
check 'offset of the first record after a time' 'kcat-plain [0] offset 0' "$(run -Q -t "kcat-plain:0:$start")"
check 'end offset' 'kcat-plain [0] offset 3' "$(run -Q -t kcat-plain:0:-1)"
check 'beginning offset' 'kcat-plain [0] offset 0' "$(run -Q -t kcat-plain:0:-2)"
check 'nothing after a time to come' 'kcat-plain [0] offset -1' "$(run -Q -t "kcat-plain:0:$((start + 3600000))")"
check 'consume from a time' $'one\ntwo\nthree' "$(consume -t kcat-plain -p 0 -o "s@$start")"

# A consumer that waits sees what arrives.
run -C -q -u -t kcat-plain -p 0 -o end -c 1 >arrived &
waiting=$!
while kill -0 "$waiting" 2>/dev/null; do # it sees none that came before it had found the end
    sleep 1
    printf 'four\n' | run -P -t kcat-plain -p 0
done
wait "$waiting"
check 'a waiting consumer' four "$(cat arrived)"

if [ "$failed" -gt 0 ] && [ -s errors ]; then
    echo 'what kcat said:'
    tail -n 30 errors
fi
echo "kcat: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
