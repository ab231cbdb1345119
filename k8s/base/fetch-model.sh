#!/bin/sh
# Puts the model into MODEL_DIR once: downloads, checks the SHA-256, and only then gives the file its name, so
# that the server never sees half of it. Goes on where an earlier attempt was cut off.
set -eu
cd "$MODEL_DIR"
part="$MODEL_FILE.${HOSTNAME:-local}.part" # of this pod alone: a volume may be shared
done="$MODEL_FILE.sha256"                  # spares a restart the reading of the whole file

if [ -f "$MODEL_FILE" ] && [ "$(cat "$done" 2>/dev/null)" = "$MODEL_SHA256" ]; then
  echo "fetch-model: $MODEL_FILE is there"
  exit 0
fi

download() {
  curl --fail --location --silent --show-error --retry 10 --retry-delay 5 --connect-timeout 30 \
    --speed-limit 10000 --speed-time 60 --output "$part" "$@" "$MODEL_URL"
}
echo "fetch-model: downloading $MODEL_FILE"
if ! download --continue-at -; then
  # A server that cannot continue, or a part that is longer than the file: once more from the start.
  rm -f "$part"
  download
fi

if ! echo "$MODEL_SHA256  $part" | sha256sum -c - >/dev/null; then
  echo "fetch-model: the SHA-256 of $MODEL_URL is not $MODEL_SHA256" >&2
  rm -f "$part"
  exit 1
fi
mv -f "$part" "$MODEL_FILE"
echo "$MODEL_SHA256" >"$done"
echo "fetch-model: $MODEL_FILE is complete"
