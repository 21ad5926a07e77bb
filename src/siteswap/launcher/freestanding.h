/* Just enough C library for launcher.c on x86-64 Linux, straight on system calls; used with -nostdlib.
 *
 * Why not simply link a libc statically: what a static glibc does before main() (asking the processor for its
 * features above all, which is slow in a virtual machine) takes longer than all that the launcher itself does, it
 * is run at every start of Python, and it makes the program fifty times as large. launcher.c knows nothing of
 * this file: without it, it is an ordinary program for any C library and processor.
 *
 * The functions are those that the standard headers declare. Types and constants come from there; on this
 * processor the C libraries' struct stat and struct timespec are the kernel's own.
 */
#if !defined __x86_64__ || defined __ILP32__ || !defined __linux__
#error "for this processor the launcher needs a C library: compile it without -DFREESTANDING"
#endif

#include <stddef.h>
#include <sys/syscall.h>

static int error_number;
static unsigned long *auxiliary;
char **environ;

int *__errno_location(void) { return &error_number; }      /* what `errno` stands for, in glibc and musl alike */

static long call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    if (result < 0 && result > -4096) {
        error_number = (int)-result;
        return -1;
    }
    return result;
}

#define CALL(number, a, b, c, d) call(number, (long)(a), (long)(b), (long)(c), (long)(d))

ssize_t readlink(const char *path, char *out, size_t size) { return CALL(SYS_readlink, path, out, size, 0); }
ssize_t write(int fd, const void *data, size_t size) { return CALL(SYS_write, fd, data, size, 0); }
int open(const char *path, int flags, ...) { return (int)CALL(SYS_open, path, flags, 0, 0); }
int close(int fd) { return (int)CALL(SYS_close, fd, 0, 0, 0); }
int flock(int fd, int operation) { return (int)CALL(SYS_flock, fd, operation, 0, 0); }
int access(const char *path, int mode) { return (int)CALL(SYS_access, path, mode, 0, 0); }
int stat(const char *path, struct stat *out) { return (int)CALL(SYS_stat, path, out, 0, 0); }
int lstat(const char *path, struct stat *out) { return (int)CALL(SYS_lstat, path, out, 0, 0); }
int fstat(int fd, struct stat *out) { return (int)CALL(SYS_fstat, fd, out, 0, 0); }
char *getcwd(char *out, size_t size) { return CALL(SYS_getcwd, out, size, 0, 0) < 0 ? NULL : out; }
int clock_gettime(clockid_t clock, struct timespec *out) { return (int)CALL(SYS_clock_gettime, clock, out, 0, 0); }

int nanosleep(const struct timespec *time, struct timespec *rest)
{
    return (int)CALL(SYS_nanosleep, time, rest, 0, 0);
}

int fcntl(int fd, int command, ...)                        /* every command we use takes an int */
{
    __builtin_va_list arguments;
    __builtin_va_start(arguments, command);
    int argument = __builtin_va_arg(arguments, int);
    __builtin_va_end(arguments);
    return (int)CALL(SYS_fcntl, fd, command, argument, 0);
}

int execve(const char *path, char *const *argv, char *const *variables)
{
    return (int)CALL(SYS_execve, path, argv, variables, 0);
}

void _exit(int status)
{
    for (;;)
        CALL(SYS_exit_group, status, 0, 0, 0);
}

unsigned long getauxval(unsigned long type)
{
    for (unsigned long *entry = auxiliary; entry[0]; entry += 2)
        if (entry[0] == type)
            return entry[1];
    return 0;
}

/* A compiler that recognises such loops would make them calls of the very functions they define. */
#define AS_WRITTEN __asm__ volatile("" ::: "memory")

void *memmove(void *out, const void *in, size_t size)
{
    char *to = out;
    const char *from = in;
    if (to <= from)
        for (size_t i = 0; i < size; i++) {
            to[i] = from[i];
            AS_WRITTEN;
        }
    else
        while (size--) {
            to[size] = from[size];
            AS_WRITTEN;
        }
    return out;
}

void *memcpy(void *restrict out, const void *restrict in, size_t size) { return memmove(out, in, size); }

void *memset(void *out, int value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        ((char *)out)[i] = (char)value;
        AS_WRITTEN;
    }
    return out;
}

size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length]) {
        length++;
        AS_WRITTEN;
    }
    return length;
}

int strncmp(const char *a, const char *b, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i] || !a[i])
            return (unsigned char)a[i] - (unsigned char)b[i];
    return 0;
}

int memcmp(const void *a, const void *b, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (((const char *)a)[i] != ((const char *)b)[i])
            return ((const unsigned char *)a)[i] - ((const unsigned char *)b)[i];
    return 0;
}

int strcmp(const char *a, const char *b) { return strncmp(a, b, (size_t)-1); }
char *strcpy(char *restrict out, const char *restrict in) { return memmove(out, in, strlen(in) + 1); }

static size_t span(const char *text, const char *set, int wanted)
{
    size_t length = 0;
    for (; text[length]; length++) {
        int found = 0;
        for (const char *p = set; *p; p++)
            found |= *p == text[length];
        if (found != wanted)
            break;
    }
    return length;
}

size_t strspn(const char *text, const char *set) { return span(text, set, 1); }
size_t strcspn(const char *text, const char *set) { return span(text, set, 0); }

char *strchr(const char *text, int wanted)
{
    for (;; text++) {
        if (*text == (char)wanted)
            return (char *)text;
        if (!*text)
            return NULL;
    }
}

char *strrchr(const char *text, int wanted)
{
    char *last = NULL;
    for (; *text; text++)
        if (*text == (char)wanted)
            last = (char *)text;
    return last;
}

char *strstr(const char *text, const char *wanted)
{
    size_t length = strlen(wanted);
    for (; *text; text++)
        if (!strncmp(text, wanted, length))
            return (char *)text;
    return NULL;
}

int main(int argc, char **argv);

/* Called with the stack as the kernel left it: argc, argv, NULL, environment, NULL, auxiliary vector. */
__attribute__((noreturn, used)) static void begin(long *stack)
{
    char **argv = (char **)(stack + 1);
    environ = argv + stack[0] + 1;
    char **end = environ;
    while (*end)
        end++;
    auxiliary = (unsigned long *)(end + 1);
    _exit(main((int)stack[0], argv));
    __builtin_unreachable();
}

__asm__(".globl _start\n"
        ".type _start, @function\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call begin\n");
