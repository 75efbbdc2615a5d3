#!/usr/bin/env bash
# Load a finished aarch64 wheel on an x86_64 Debian 12: its modules, in the aarch64 torch, under qemu-user.
# No kernel runs: there is no GPU. Needs qemu-user-static, uv and 6 GB of disk; nothing needs root.
#
#   load_under_qemu.sh WHEEL FOLDER LIBCUDA
#
# LIBCUDA stands in for the driver's library: cuda/targets/sbsa-linux/lib/stubs/libcuda.so of the build tree.
set -euo pipefail
wheel=$(realpath "$1") folder=$(realpath "$2") libcuda=$(realpath "$3")
root=$folder/root site=$folder/site
packages=(
  libc6 libgcc-s1 libstdc++6 libgomp1 libnuma1 zlib1g libssl3 libffi8 libexpat1 libbz2-1.0 liblzma5 libsqlite3-0
  libuuid1 libreadline8 libncursesw6 libtinfo6 libcrypt1 libtirpc3 libnsl2 libgssapi-krb5-2 libkrb5-3 libk5crypto3
  libkrb5support0 libcom-err2 libkeyutils1 libdb5.3
  python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
)
if [[ ! -e $root/.whole ]]; then
  mkdir -p "$root" "$folder"/{lists/partial,debs}
  options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State::Lists=$folder/lists"
           -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=" -o Dir::State::status=/dev/null)
  apt-get "${options[@]}" -qq update
  (cd "$folder/debs" && apt-get "${options[@]}" -qq download "${packages[@]}")
  for deb in "$folder"/debs/*.deb; do dpkg -x "$deb" "$root"; done
  touch "$root/.whole"
fi
# its torch, for aarch64 and Python 3.11, from PyPI; then the wheel itself
into=(--quiet --target "$site" --python-platform aarch64-manylinux_2_39 --python-version 3.11 --only-binary :all:)
[[ -e $site/torch ]] || uv pip install "${into[@]}" torch==2.11.0 numpy
uv pip install "${into[@]}" --no-deps --reinstall "$wheel"
mkdir -p "$folder/driver" && cp "$libcuda" "$folder/driver/libcuda.so.1"
libraries=$folder/driver:$(printf '%s:' "$site"/nvidia/*/lib)
exec qemu-aarch64-static -L "$root" -E LD_LIBRARY_PATH="$libraries" -E PYTHONPATH="$site" \
  "$root/usr/bin/python3.11" -s - "$wheel" <<'PY'
import glob, importlib, os, sys, time, zipfile
started = time.time()
import torch
print(f"torch {torch.__version__} on {os.uname().machine}, CUDA {torch.version.cuda}, {time.time() - started:.0f} s")
names = [n for n in zipfile.ZipFile(sys.argv[1]).namelist() if n.endswith(".so")]
for name in names:
    path = os.path.join(os.environ["PYTHONPATH"], name)
    started = time.time()
    try:
        torch.ops.load_library(path) if "cumem" not in name else importlib.import_module("vllm.cumem_allocator")
        print(f"loaded {name} in {time.time() - started:.2f} s")
    except (OSError, ImportError) as error:
        print(f"NOT loaded {name}: {error}")
for space in ("_C", "_C_cache_ops", "_moe_C", "_vllm_fa2_C"):
    ops = [s.name for s in torch._C._jit_get_all_schemas() if s.name.startswith(space + "::")]
    print(f"{space}: {len(ops)} ops registered")
PY
