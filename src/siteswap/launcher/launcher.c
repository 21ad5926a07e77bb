/* The program at GEN/bin/python: ties the process to generation GEN, then becomes the base interpreter.
 *
 * ENV/bin/python is reached through the link ENV/.siteswap/current, and the kernel follows that link once, in
 * the exec that starts us. So our own path names one generation for good, and everything below derives from it.
 * The order of the three steps is what makes this exact:
 *
 *     lock the lease (shared)  ->  see that it is still the right generation  ->  exec the interpreter
 *
 * Why the look comes after the lock, told in time order with a collector C that removes generation 3:
 *
 *     we   are started through current -> generations/3
 *     C    has made 4 current since, and now locks the lease of 3 exclusively: nobody has it yet
 *     we   open the lease of 3; asking for the lock fails, or (the dangerous case) is granted once C lets go
 *     C    has renamed generations/3 away meanwhile and put the tombstone 3 -> ../current in its place
 *
 * A look before the lock would still have seen 3 there. After the lock it is decisive: C needs the exclusive
 * lock to move what we hold, so what is in place once we hold it stays in place until we exit. A lease that is
 * no longer the one at its path belongs to a directory that was moved, and we start over with what is current
 * now. The same goes for a path of ours outside `generations/`, or one that the kernel marks as deleted: we
 * were started from a directory that was moved in between.
 *
 * Being in place is not enough, though. Once more in time order, with a writer W:
 *
 *     we   are started through current -> generations/3, and then get no processor time for a while
 *     C    removes 3 and keeps the directory; W makes it into 5, which is being checked and not published
 *     we   read our own path: the kernel says generations/5, and its lease is there to be locked
 *
 * So who was started by the logical path goes on only if `current` names the generation that was locked; who was
 * started by the path of generation 3 only if it still is in 3; and SITESWAP_GENERATION names what it wants.
 *
 * Everything is in terms of one buffer size, PATH_MAX: the kernel takes no longer path, so neither do we.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef FREESTANDING
#include "freestanding.h"
#endif

enum { REFUSED = 126, MISSING = 127 };          /* the exit statuses a shell gives for the same two reasons */
enum { PATIENCE_SECONDS = 10, QUICK_TRIES = 4, LINKS_MAX = 40, HIGH_DESCRIPTOR = 100 };

#define SELF "/proc/self/exe"
#define LEASE "/.generation/lease"

extern char **environ;

static const char *reason(int error)            /* strerror() would bring in all of gettext */
{
    switch (error) {
    case ENOENT: return "no such file";
    case EACCES: case EPERM: return "permission denied";
    case ENOEXEC: return "not a program for this machine";
    case ENAMETOOLONG: return "the path is too long";
    case EMFILE: case ENFILE: return "too many open files";
    case ENOLCK: case EOPNOTSUPP: case ENOSYS: return "this file system has no such locks";
    case ELOOP: return "too many links";
    default: return "the system refused";
    }
}

#define SAY(...) say((const char *[]){"siteswap: ", __VA_ARGS__, "\n", NULL})
#define DIE(status, ...) do { SAY(__VA_ARGS__); _exit(status); } while (0)

static void say(const char *const *parts)
{
    char text[3 * PATH_MAX];                    /* one write, so that lines of several processes do not mix */
    size_t used = 0;
    for (; *parts; parts++)
        for (const char *p = *parts; *p && used < sizeof text; p++)
            text[used++] = *p;
    if (write(STDERR_FILENO, text, used) < 0)
        return;                                 /* nobody listens: the exit status says enough */
}

static void join(char *out, const char *first, const char *second)
{
    size_t head = strlen(first), tail = strlen(second);
    if (head + tail >= PATH_MAX)
        DIE(REFUSED, "the path is too long: ", first, second);
    memmove(out, first, head);
    memmove(out + head, second, tail + 1);
}

static int read_link(const char *path, char *out)       /* the length; negative when it is no link or too long */
{
    ssize_t length = readlink(path, out, PATH_MAX);
    if (length >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (length >= 0)
        out[length] = '\0';
    return (int)length;
}

static int absolute(const char *path, char *out)
{
    if (path[0] == '/') {
        if (strlen(path) >= PATH_MAX)
            return 0;
        strcpy(out, path);
        return 1;
    }
    if (!getcwd(out, PATH_MAX) || out[0] != '/')        /* removed, or outside of our root */
        return 0;
    size_t used = strlen(out);
    if (used + strlen(path) + 2 > PATH_MAX)
        return 0;
    out[used] = '/';
    strcpy(out + used + 1, path);
    return 1;
}

static int same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static size_t digits(const char *text)
{
    size_t length = strspn(text, "0123456789");
    return text[0] == '0' ? 0 : length;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && !strcmp(text + length - tail, end);
}

/* Where does `path` enter this environment's generations? For IN_GENERATION the rest below it is put into `rest`.
 *
 * Follows links one by one as the kernel would, and stops at the first step into ENV/.siteswap/current or
 * ENV/.siteswap/generations/N. Not realpath(3): that goes on below the generation which happens to be current
 * at this moment, so it fails when that one is collected under it, or when only ours has the file.
 * `state` is ENV/.siteswap, recognised by inode, so ENV may be reached by any link or mount. `number` (may be NULL)
 * gets the N of the path, "" for `current`.
 */
enum where { OUTSIDE = 0, IN_GENERATION, IN_STATE };     /* the last: below ENV/.siteswap otherwise, as in staging */

static enum where enters(const char *path, const struct stat *state, char *rest, char *number)
{
    char done[PATH_MAX + 1], todo[PATH_MAX], link[PATH_MAX];
    size_t used = 0;
    int links = 0;
    struct stat here;

    if (!absolute(path, todo))
        return OUTSIDE;
    const char *next = todo;
    for (;;) {
        next += strspn(next, "/");
        size_t length = strcspn(next, "/");
        const char *after = next + length;
        if (!length)
            return OUTSIDE;
        if (length == 1 && next[0] == '.') {
            next = after;
            continue;
        }
        if (length == 2 && next[0] == '.' && next[1] == '.') {
            while (used && done[--used] != '/')
                ;
            next = after;
            continue;
        }
        if (used + 1 + length >= PATH_MAX)
            return OUTSIDE;
        done[used] = '/';
        memcpy(done + used + 1, next, length);
        done[used + 1 + length] = '\0';

        if (length == 9 && !memcmp(next, ".siteswap", 9) && !stat(done, &here) && same(&here, state)) {
            after += strspn(after, "/");
            if (number)
                number[0] = '\0';
            if (!strncmp(after, "current", 7) && (after[7] == '/' || !after[7])) {
                after += 7;
            } else if (!strncmp(after, "generations/", 12)) {
                after += 12;
                size_t length = digits(after);
                if (!length || (after[length] && after[length] != '/'))
                    return IN_STATE;
                if (number) {
                    memcpy(number, after, length);
                    number[length] = '\0';
                }
                after += length;
            } else {
                return IN_STATE;
            }
            strcpy(rest, after + strspn(after, "/"));
            return IN_GENERATION;
        }

        int target = read_link(done, link);
        if (target < 0) {
            if (errno != EINVAL)
                return OUTSIDE;                 /* not there, so not ours either */
            used += 1 + length;
            next = after;
            continue;
        }
        if (++links > LINKS_MAX || (size_t)target + strlen(after) >= PATH_MAX)
            return OUTSIDE;
        memmove(todo + target, after, strlen(after) + 1);
        memcpy(todo, link, (size_t)target);
        next = todo;
        if (link[0] == '/')
            used = 0;
    }
}

/* One attempt to pin GEN: the locked descriptor, or -1 for "start over". */
static int take(const char *gen)
{
    char lease[PATH_MAX];
    struct stat directory, held, there;

    join(lease, gen, LEASE);
    int fd = open(lease, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR || errno == ESTALE)
            return -1;
        DIE(REFUSED, "cannot open ", lease, ": ", reason(errno));
    }
    while (flock(fd, LOCK_SH | LOCK_NB)) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)               /* never go on without the lock */
            DIE(REFUSED, "cannot lock ", lease, ": ", reason(errno));
        close(fd);
        return -1;
    }
    /* From here on nobody moves the directory that this lease is in. Is that GEN? The lstat tells a tombstone,
     * through which one sees another generation's lease under this one's name. */
    if (!lstat(gen, &directory) && S_ISDIR(directory.st_mode) && !fstat(fd, &held) && !stat(lease, &there)
        && same(&held, &there))
        return fd;
    close(fd);
    return -1;
}

static void find_current(const char *home, char *gen)
{
    char link[PATH_MAX], target[PATH_MAX];

    join(link, home, "/current");
    if (read_link(link, target) < 0)
        DIE(REFUSED, "cannot read ", link, ": ", reason(errno), "; next step: make it a link to one of generations/*");
    size_t number = strncmp(target, "generations/", 12) ? 0 : digits(target + 12);
    if (!number || target[12 + number])
        DIE(REFUSED, link, " names no generation; next step: make it a link to one of generations/*");
    join(gen, home, "/");
    join(gen, gen, target);
}

/* Which generation SITESWAP_GENERATION asks for, when it names one of this environment. */
static int handed_over(const char *home, char *gen)
{
    const char *wanted = NULL;
    char parent[PATH_MAX], generations[PATH_MAX];
    struct stat theirs, ours;

    for (char **entry = environ; *entry; entry++)
        if (!strncmp(*entry, "SITESWAP_GENERATION=", 20))
            wanted = *entry + 20;
    if (!wanted || wanted[0] != '/' || strlen(wanted) >= PATH_MAX)
        return 0;
    const char *number = last_part(wanted);
    if (!digits(number) || number[digits(number)])
        return 0;
    strcpy(parent, wanted);
    parent[number - wanted] = '\0';             /* keeps the slash, so "/" and "//" stay what they are */
    join(generations, home, "/generations/");
    if (stat(parent, &theirs) || stat(generations, &ours) || !same(&theirs, &ours))
        return 0;                               /* another environment's */
    join(gen, generations, number);
    return 1;
}

/* Pins, starting from GEN ("" if our own path no longer names one); leaves in GEN what was pinned. `asked` is the
 * number that we were started by, "" for the logical path. */
static int pin(const char *home, char *gen, const char *asked)
{
    struct timespec start, now, nap = {0, 2 * 1000 * 1000};
    struct stat directory;
    char current[PATH_MAX];
    int wanted = handed_over(home, gen), fd;

    if (asked[0] && !wanted && strcmp(asked, last_part(gen))) {
        gen[0] = '\0';                          /* a tombstone led us here, or 3 was made into another */
        asked = "";
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int attempt = 1;; attempt++) {
        if (gen[0] && (fd = take(gen)) >= 0) {
            if (wanted || asked[0])
                return fd;
            find_current(home, current);
            if (!strcmp(current, gen))
                return fd;
            close(fd);
        }
        if (wanted && (lstat(gen, &directory) || !S_ISDIR(directory.st_mode)))
            DIE(REFUSED, "generation ", last_part(gen), ", which SITESWAP_GENERATION asks for, was collected: ", gen,
                "; next step: siteswap history");
        if (attempt >= QUICK_TRIES)
            nanosleep(&nap, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec > PATIENCE_SECONDS)
            DIE(REFUSED, "could not pin a generation of ", home, " for ten seconds, last tried: ",
                gen[0] ? gen : "none", "; next step: siteswap rollback N");
        if (!wanted) {
            find_current(home, gen);
            asked = "";
        }
    }
}

/* The lease stays open across the exec, out of the way of programs that use small numbers as they like. */
static void keep_open(int fd)
{
    int high = fcntl(fd, F_DUPFD, HIGH_DESCRIPTOR);
    if (high < 0 && fd <= STDERR_FILENO)        /* it must not become somebody's standard stream */
        high = fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
    if (high >= 0)
        close(fd);
    else if (fcntl(fd, F_SETFD, 0))
        DIE(REFUSED, "cannot keep the lease open: ", reason(errno));
}

/* The index of the script among the arguments, 0 for none. Reads options exactly as CPython's own loop does. */
static int script_index(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i];
        int last = !strcmp(option, "--");
        if (last)
            option = ++i < argc ? argv[i] : "";
        if (!option[0] || !strcmp(option, "-"))
            return 0;                           /* nothing, or standard input */
        if (last || option[0] != '-')
            return i;
        for (option++; *option; option++) {
            if (*option == 'c' || *option == 'm')
                return 0;
            if (*option == 'W' || *option == 'X') {
                i += !option[1];                /* the argument is attached, or the next one */
                break;
            }
            if (*option == '-') {
                i += !strcmp(option + 1, "check-hash-based-pycs");
                break;
            }
        }
    }
    return 0;
}

/* A virtual environment made from this one has links to us and a pyvenv.cfg of its own: the interpreter must see
 * the path of that link. `out` gets it; false when we were invoked as ENV's own python. */
static int foreign(const char *invoked, const char *env, const struct stat *state, char *out)
{
    char directory[PATH_MAX], config[PATH_MAX], own[PATH_MAX], rest[PATH_MAX];
    struct stat theirs, ours;

    if (!strchr(invoked, '/') || !absolute(invoked, out))
        return 0;
    strcpy(directory, out);
    for (int level = 0; level < 2; level++) {   /* beside the program, then one up, as CPython looks for it */
        char *slash = strrchr(directory, '/');
        if (!slash)
            return 0;
        *slash = '\0';
        if (level == 0 && enters(directory[0] ? directory : "/", state, rest, NULL) != OUTSIDE)
            return 0;                           /* a generation's own bin, by whatever way, or what was one */
        if (strlen(directory) + sizeof "/pyvenv.cfg" > PATH_MAX)
            return 0;
        join(config, directory, "/pyvenv.cfg");
        if (!stat(config, &theirs)) {
            join(own, env, "/pyvenv.cfg");
            return stat(own, &ours) || !same(&theirs, &ours);
        }
    }
    return 0;
}

/* Is `invoked` a way to the launcher? By inode; or by name, for where a flip since the exec has put another build
 * of the launcher in its place. */
static int leads_here(const char *invoked, const struct stat *me, const struct stat *state, const char *name)
{
    char rest[PATH_MAX];
    struct stat it;

    if (!stat(invoked, &it) && same(&it, me))
        return 1;
    return enters(invoked, state, rest, NULL) == IN_GENERATION && !strncmp(rest, "bin/", 4) && !strcmp(rest + 4, name);
}

int main(int argc, char **argv)
{
    static char self[PATH_MAX], env[PATH_MAX], home[PATH_MAX], gen[PATH_MAX], base[PATH_MAX], link[PATH_MAX];
    static char program[PATH_MAX], script[PATH_MAX], rest[PATH_MAX], asked[PATH_MAX];
    static char *bare[] = {program, NULL};
    struct stat state, me, it;

    if (read_link(SELF, self) < 0 || self[0] != '/' || stat(SELF, &me))
        DIE(REFUSED, "cannot read " SELF " (", reason(errno),
            "), and so not tell which environment this is; is /proc mounted?");
    const char *mark = NULL;
    for (const char *p = self; (p = strstr(p, "/.siteswap/")); p++)
        mark = p;
    if (!mark)
        DIE(REFUSED, self, " is a launcher outside of any environment; next step: siteswap create");
    memcpy(env, self, (size_t)(mark - self));
    join(home, env, "/.siteswap");
    if (stat(home, &state))
        DIE(REFUSED, "cannot find ", home, ": ", reason(errno));

    /* Which generation are we in? Anything but ENV/.siteswap/generations/N/... leaves `gen` empty: start over. */
    const char *inside = mark + sizeof "/.siteswap/" - 1;
    if (ends_with(self, " (deleted)") && lstat(self, &it))
        self[strlen(self) - (sizeof " (deleted)" - 1)] = '\0';
    else if (!strncmp(inside, "generations/", 12)) {
        size_t number = digits(inside + 12);
        if (number && inside[12 + number] == '/')
            memcpy(gen, self, (size_t)(inside + 12 + number - self));
    }
    const char *name = last_part(self);

    /* What were we called? AT_EXECFN says it, except when a script's first line started us: then it is the
     * script, and argv[0] is what that line says. */
    const char *invoked = (const char *)getauxval(AT_EXECFN);
    if (!invoked || !leads_here(invoked, &me, &state, name))
        invoked = argc > 0 ? argv[0] : "";
    if (enters(invoked, &state, rest, asked) != IN_GENERATION)
        asked[0] = '\0';

    int fd = pin(home, gen, asked);

    if (!foreign(invoked, env, &state, program)) {
        join(program, gen, "/bin/");
        join(program, program, name);
        if (access(program, F_OK))              /* handed over to a generation of another Python version */
            join(program, gen, "/bin/python");
    }

    /* The interpreter opens the script again, by path and after the pin: by the path that leads through
     * `current` it would find the text of whichever generation is live by then. */
    int index = script_index(argc, argv);
    if (index && enters(argv[index], &state, rest, NULL) == IN_GENERATION) {
        join(script, gen, "/");
        join(script, script, rest);
        /* /dev/fd/N of a file since removed: only the descriptor still leads to it. */
        if (!ends_with(rest, " (deleted)") || !access(script, F_OK))
            argv[index] = script;
    }
    if (argc > 0)
        argv[0] = program;
    else
        argv = bare;

    join(link, gen, "/.generation/python");
    if (read_link(link, base) < 0)
        DIE(REFUSED, "cannot read ", link, ": ", reason(errno), "; next step: siteswap rollback N");
    keep_open(fd);
    execve(base, argv, environ);
    int error = errno;
    DIE(error == ENOENT || error == ENOTDIR ? MISSING : REFUSED, "cannot start the base interpreter ", base,
        " of ", gen, ": ", reason(error), "; next step: install that Python again, or siteswap create");
}
