#!/bin/sh
# Makes the modules of this folder: sh make.sh NVCC_FOLDER (CUDA 13.0.88). They hold three units: one with code for
# many GPUs, one with PTX alone, one for Hopper alone; linked for both CPUs, with RELA and with RELR relocations, and
# with a thread-local variable that is zero.
set -eu
nvcc=$1/nvcc
unit() {  # CPU's compiler, options, namespace, name, work, -gencode...
    compiler=$1; extra=$2; space=$3; name=$4; work=$5; shift 5
    "$nvcc" -ccbin "$compiler" $extra -Xcompiler -fPIC -DSPACE="$space" -DNAME="$name" -DHOST="host_$name" -DWORK="$work" "$@" \
        -c many.cu -o "$name.o"
}
module() {  # compiler, nvcc options, file, linker options
    compiler=$1; extra=$2; file=$3; shift 3
    unit "$compiler" "$extra" vllm rms_norm 220 -gencode arch=compute_80,code=sm_80 -gencode arch=compute_80,code=compute_80 \
        -gencode arch=compute_90,code=sm_90 -gencode arch=compute_110,code=sm_110 -Xfatbin --compress-mode=none
    unit "$compiler" "$extra" flash text 40 -gencode arch=compute_80,code=compute_80 -gencode arch=compute_75,code=compute_75
    unit "$compiler" "$extra" flash hopper 20 -gencode arch=compute_90a,code=sm_90a
    echo "extern \"C\" void *PyInit__C(void) { return 0; } $host" | "$compiler" -fPIC -x c++ -c - -o init.o
    "$compiler" -shared -Wl,-z,max-page-size=16384 -o "$file" rms_norm.o text.o hopper.o init.o "$@"
    rm rms_norm.o text.o hopper.o init.o
}
host=""
module aarch64-linux-gnu-g++ "--target-directory=sbsa-linux" aarch64.so
module g++ "" x86_64.so
module g++ "" relr.so -Wl,-z,pack-relative-relocs
host="thread_local int zero; extern \"C\" int *of_this_thread(void) { return &zero; }"  # PT_TLS without a byte in the file
module g++ "" tls.so
