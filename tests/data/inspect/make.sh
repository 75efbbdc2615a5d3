#!/bin/sh
# Makes the objects and libraries beside this file; they are kept so that tests need no CUDA toolkit.
# Needs nvcc 13.0 and Debian's aarch64 cross compiler. usage: make.sh /usr/local/cuda-13.0/bin/nvcc
set -eu
cd "$(dirname "$0")"
NVCC=$1
GCC="aarch64-linux-gnu-gcc -shared -fPIC -O1 -nostdlib -Wl,-z,max-page-size=4096 -Wl,--hash-style=gnu"
code() { out=$1; shift; "$NVCC" -c -Xcompiler -Os "$@" kernels.cu -o "$out"; strip --strip-debug "$out"; }
ALL="-gencode arch=compute_110,code=sm_110 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=[sm_80,compute_80] -gencode arch=compute_120f,code=[sm_120f,compute_120f]"
for mode in none size speed balance; do code "$mode.o" -compress-mode=$mode $ALL; done
code family.o -compress-mode=size -gencode arch=compute_110f,code=sm_110f \
  -gencode arch=compute_103a,code=[sm_103a,compute_103a] -gencode arch=compute_87,code=sm_87
code rdc.o -rdc=true -gencode arch=compute_110f,code=sm_110f -gencode arch=compute_80,code=[sm_80,compute_80]
code lto.o -rdc=true -gencode arch=compute_80,code=lto_80
code thor.o -compress-mode=size -gencode arch=compute_110,code=sm_110
code old.o -compress-mode=size -gencode arch=compute_80,code=[sm_80,compute_80]

# Stand-ins for what a module links.
echo 'void _ZN3c1013MessageLoggerC1EPKcii(void){} void c10_new(void){}' | $GCC -x c - -Wl,-soname,libc10.so -o libc10_new.so
echo 'void c10_old(void){}' | $GCC -x c - -Wl,-soname,libc10.so -o libc10_old.so
printf 'libcudart.so.13 { global: *; };' > cudart.map
echo 'void cudaMalloc(void){}' | $GCC -x c - -Wl,-soname,libcudart.so.13 -Wl,--version-script=cudart.map -o libcudart.so.13
printf 'GLIBC_2.17 { global: memcpy; }; GLIBC_2.34 { global: __libc_start_main; };' > libc.map
echo 'void memcpy(void){} void __libc_start_main(void){}' | $GCC -w -ffreestanding -x c - -Wl,-soname,libc.so.6 -Wl,--version-script=libc.map -o libc.so.6

# Modules: device code of one object, host code that links the stand-ins.
module() {
  objcopy -O binary -j .nv_fatbin --set-section-flags .nv_fatbin=alloc "$2" module.fatbin
  printf '.section .nv_fatbin,"a"\n.incbin "module.fatbin"\n' > module.s
  cat > module.c <<C
void _ZN3c1013MessageLoggerC1EPKcii(void); void cudaMalloc(void); void $3(void); void PyModule_Create2(void);
const char schema[] = "rms_norm(Tensor! out, Tensor input, float epsilon) -> ()";
void PyInit__C(void){ _ZN3c1013MessageLoggerC1EPKcii(); cudaMalloc(); $3(); PyModule_Create2(); }
C
  $GCC module.c module.s libc10_new.so libcudart.so.13 libc.so.6 -o "$1"
  rm module.fatbin module.s module.c
}
module thor.so thor.o memcpy
module old.so old.o __libc_start_main
rm -f cudart.map libc.map libc.so.6 thor.o old.o
