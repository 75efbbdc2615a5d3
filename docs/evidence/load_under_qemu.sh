#!/usr/bin/env bash
# Load a finished aarch64 wheel on an x86_64 Debian 12: its modules, in the aarch64 torch, under qemu-user.
# No kernel runs: there is no GPU. Needs qemu-user-static, uv and 6 GB of disk; nothing needs root.
#
#   load_under_qemu.sh WHEEL FOLDER LIBCUDA TORCH [import]
#
# TORCH is the version that the wheel names. With `import` all that the wheel asks for is installed, too, and vllm and
# its server's module are imported as far as that needs no GPU.
# LIBCUDA stands in for the driver's library: cuda/targets/sbsa-linux/lib/stubs/libcuda.so of the build tree.
set -euo pipefail
wheel=$(realpath "$1") folder=$(realpath "$2") libcuda=$(realpath "$3") torch=$4 also=${5:-}
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
# torch asks the kernel which CPU this is; qemu-user shows the host's answers, so two Neoverse-N1 cores are told instead
for core in 0 1; do
  identity=$root/sys/devices/system/cpu/cpu$core/regs/identification
  mkdir -p "$identity" && echo 0x00000000410fd0c1 > "$identity/midr_el1"
done
mkdir -p "$root/proc"
for core in 0 1; do
  printf '%s\n' "processor : $core" "Features : fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp" \
    "CPU implementer : 0x41" "CPU architecture: 8" "CPU variant : 0x3" "CPU part : 0xd0c" "CPU revision : 1" ""
done > "$root/proc/cpuinfo"
# its torch, for aarch64 and Python 3.11, from PyPI; then the wheel itself
into=(--quiet --target "$site" --python-platform aarch64-manylinux_2_39 --python-version 3.11 --only-binary :all:)
[[ -e $site/torch ]] || uv pip install "${into[@]}" "torch==$torch" numpy
[[ -z $also ]] || uv pip install "${into[@]}" "$wheel"
uv pip install "${into[@]}" --no-deps --reinstall "$wheel"
mkdir -p "$folder/driver" && cp "$libcuda" "$folder/driver/libcuda.so.1"
libraries=$folder/driver:$(printf '%s:' "$site"/nvidia/*/lib)
exec qemu-aarch64-static -cpu neoverse-n1 -L "$root" -E LD_LIBRARY_PATH="$libraries" -E PYTHONPATH="$site" \
  "$root/usr/bin/python3.11" -s - "$wheel" "$also" <<'PY'
import importlib.util, os, re, sys, time, traceback, zipfile
started = time.time()
import torch
print(f"torch {torch.__version__} on {os.uname().machine}, CUDA {torch.version.cuda}, {time.time() - started:.0f} s", flush=True)
site, before = os.environ["PYTHONPATH"], {s.name for s in torch._C._jit_get_all_schemas()}
wheel = zipfile.ZipFile(sys.argv[1])
for name in (n for n in wheel.namelist() if n.endswith(".so")):
    path, started = os.path.join(site, name), time.time()
    try:
        torch.ops.load_library(path)
        how = "loaded"
        if b"PyInit_" + name.split("/")[-1].split(".")[0].encode() in wheel.read(name):
            spec = importlib.util.spec_from_file_location(name.split("/")[-1].split(".")[0], path)
            importlib.util.module_from_spec(spec)
            how = "loaded and initialised"
        print(f"{how} {name} in {time.time() - started:.2f} s", flush=True)
    except (OSError, ImportError) as error:
        print(f"NOT loaded {name}: {error}", flush=True)
ours = sorted({s.name for s in torch._C._jit_get_all_schemas()} - before)
spaces = sorted({name.split("::")[0] for name in ours})
print("; ".join(f"{space}: {sum(n.startswith(space + '::') for n in ours)} ops" for space in spaces), flush=True)
called = set()
for name in wheel.namelist():
    if name.endswith(".py"):
        called |= {"::".join(m) for m in re.findall(r"torch\.ops\.(\w+)\.(\w+)", wheel.read(name).decode())}
wanted = sorted(name for name in called if name.split("::")[0] in spaces)
absent = [name for name in wanted if name not in ours]
print(f"{len(wanted)} ops of these spaces are called in the wheel's Python files, {len(absent)} are not registered: {', '.join(absent)}", flush=True)
if sys.argv[2]:
    for module in ("vllm", "vllm.platforms", "vllm._custom_ops", "vllm.entrypoints.openai.api_server"):
        started = time.time()
        try:
            importlib.import_module(module)
            print(f"imported {module} in {time.time() - started:.0f} s", flush=True)
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            print(f"NOT imported {module}: {type(error).__name__}: {error} ({last.filename.replace(site + '/', '')}:{last.lineno})", flush=True)
PY
