/* Preloaded: another root for the paths that tell a Jetson, another kernel release, and another libnvidia-ml.so.1
   (none where ARMORY_NVML is empty). All of it is read from the environment at each call. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

static char const *const MARKS[] = {"/etc/nv_tegra_release", "/sys/class/tegra-firmware", "/proc/device-tree",
                                    "/sys/firmware/devicetree"};
static __thread char other[4096];

static char const *moved(char const *path) {
  for (unsigned n = 0; path && n < sizeof MARKS / sizeof *MARKS; ++n) {
    if (strncmp(path, MARKS[n], strlen(MARKS[n])) == 0) {
      char const *root = getenv("ARMORY_ROOT");
      snprintf(other, sizeof other, "%s%s", root ? root : "/nowhere", path);
      return other;
    }
  }
  return path;
}
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags)                          \
  int mode = 0;                              \
  if ((flags) & (O_CREAT | O_TMPFILE)) {     \
    va_list words;                           \
    va_start(words, flags);                  \
    mode = va_arg(words, int);               \
    va_end(words);                           \
  }
int open(char const *path, int flags, ...) { MODE(flags) return REAL(open)(moved(path), flags, mode); }
int open64(char const *path, int flags, ...) { MODE(flags) return REAL(open64)(moved(path), flags, mode); }
int openat(int at, char const *path, int flags, ...) { MODE(flags) return REAL(openat)(at, moved(path), flags, mode); }
int openat64(int at, char const *path, int flags, ...) { MODE(flags) return REAL(openat64)(at, moved(path), flags, mode); }
int stat(char const *path, struct stat *into) { return REAL(stat)(moved(path), into); }
int stat64(char const *path, struct stat64 *into) { return REAL(stat64)(moved(path), into); }
int lstat(char const *path, struct stat *into) { return REAL(lstat)(moved(path), into); }
int lstat64(char const *path, struct stat64 *into) { return REAL(lstat64)(moved(path), into); }
int fstatat(int at, char const *path, struct stat *into, int flags) { return REAL(fstatat)(at, moved(path), into, flags); }
int fstatat64(int at, char const *path, struct stat64 *into, int flags) {
  return REAL(fstatat64)(at, moved(path), into, flags);
}
int access(char const *path, int mode) { return REAL(access)(moved(path), mode); }
int faccessat(int at, char const *path, int mode, int flags) { return REAL(faccessat)(at, moved(path), mode, flags); }
int uname(struct utsname *into) {
  int result = REAL(uname)(into);
  char const *release = getenv("ARMORY_RELEASE");
  if (release) snprintf(into->release, sizeof into->release, "%s", release);
  return result;
}
void *dlopen(char const *path, int flags) {
  if (path && strcmp(path, "libnvidia-ml.so.1") == 0) {
    char const *state = getenv("ARMORY_NVML"), *library = getenv("ARMORY_NVML_LIBRARY");
    path = state && *state && library ? library : "/nowhere/libnvidia-ml.so.1";
  }
  return REAL(dlopen)(path, flags);
}
