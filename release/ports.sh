#!/usr/bin/env bash
# The compiled codec on an aarch64 Debian, on a machine of another kind: by hand, not in CI, for it takes
# half an hour. QEMU does not show the order of memory of such a processor; docs/explanation/platforms.md.
#
#   release/ports.sh FOLDER [pytest's arguments]      FOLDER must not exist yet, or be of a former run
#
# Wants root, debootstrap, qemu-user-static, a Linux of 6.7 or newer (its own binfmt_misc for each user
# namespace), and python3.13 here, whose venv cross-compiles with ziglang. Leaves FOLDER, and no mounts.
set -euo pipefail

cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
root=$(cd "$1" && pwd)
shift
for need in debootstrap dpkg-deb qemu-aarch64-static python3.13; do
    command -v "$need" >/dev/null || { echo "ports.sh: $need is missing" >&2; exit 1; }
done

if [ ! -e "$root/usr/bin/python3.13" ]; then # unpacked only: no script of a package is run, emulated
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,python3-dev,python3-venv,procps,libstdc++6 \
        trixie "$root"
    for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
fi

tools="$root/tools" # of this machine
if [ ! -x "$tools/cc" ]; then
    python3.13 -m venv "$tools"
    "$tools/bin/pip" install -q ziglang 'cython>=3.1' 'setuptools>=77'
    printf '#!/bin/sh\nexec "%s" -m ziglang cc -target aarch64-linux-gnu.2.28 "$@"\n' "$tools/bin/python" >"$tools/cc"
    chmod +x "$tools/cc"
fi

rm -rf "$root/src" "$root/wheel"
mkdir "$root/src" "$root/wheel"
git ls-files -z | xargs -0 cp --parents -t "$root/src"
(
    cd "$root/src"
    include=$root/usr/include
    _PYTHON_HOST_PLATFORM=linux-aarch64 SETUPTOOLS_EXT_SUFFIX=.cpython-313-aarch64-linux-gnu.so \
        CC="$tools/cc" LDSHARED="$tools/cc -shared" CFLAGS="-I$include/python3.13 -I$include" \
        KONG_PDK_REQUIRE_EXTENSIONS=1 \
        "$tools/bin/pip" wheel -q --no-build-isolation --no-deps -w "$root/wheel" .
)

# A command in there, as root of a user namespace with an emulator of its own.
emulated() {
    unshare --user --mount --propagation private bash -c '
        until [ -n "$(cat /proc/self/gid_map)" ]; do sleep 0.05; done
        root=$1 qemu=$2; shift 2
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
        head="\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00"
        mask="\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff"
        printf "%s" ":qemu-aarch64:M::$head:$mask:$qemu:F" >/proc/sys/fs/binfmt_misc/register
        mount --rbind /dev "$root/dev"
        mount --rbind /proc "$root/proc"
        exec chroot "$root" "$@"' emulated "$root" "$(command -v qemu-aarch64-static)" "$@" &
    local pid=$!
    until [ "$(readlink "/proc/$pid/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.05; done
    echo "0 0 65536" >"/proc/$pid/uid_map"
    echo "0 0 65536" >"/proc/$pid/gid_map"
    wait "$pid"
}

[ -x "$root/venv/bin/python" ] || emulated /usr/bin/python3.13 -m venv --without-pip /venv
site="$root/venv/lib/python3.13/site-packages"
platforms=(--platform linux_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64)
"$tools/bin/pip" install -q --upgrade --target "$site" "${platforms[@]}" --only-binary=:all: \
    "$root"/wheel/*.whl 'hypothesis>=6.100' 'pytest>=8' 'pytest-benchmark>=4' 'pytest-timeout>=2.3'
[ $# -gt 0 ] || set -- tests/unit/codec -k 'not pure'
emulated /usr/bin/env -C /src HOME=/root LANG=C.UTF-8 KONG_PDK_REQUIRE_EXTENSIONS=1 \
    KONG_PDK_TEST_TIMEOUT_SCALE=10 KONG_PDK_HYPOTHESIS_EXAMPLES=5 \
    /venv/bin/python -c 'import sys; del sys.path[0]; import pytest; sys.exit(pytest.main())' \
    -q -p no:cacheprovider --timeout=600 "$@"
