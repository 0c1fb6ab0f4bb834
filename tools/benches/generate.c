/* Makes and rewrites the trees that tools/bench measures on.
 *
 *   generate tree ROOT A B C MTIME       A x B x C leaf directories with one small file each
 *   generate files ROOT PROCESSES N PER  N small files, PER to a directory, by PROCESSES at once
 *   generate rewrite ROOT PER            then on stdin, a line each: FROM TO, the files to rewrite
 *
 * `tree` gives everything the same mtime, so that two trees made by it are copies of each other,
 * and prints a line for each of A x B; `rewrite` answers each line with one. generate.py does the
 * same where there is no compiler.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void make_directory(const char *path) {
    if (mkdir(path, 0755) && errno != EEXIST) die(path);
}

static void make_file(const char *path, const char *text, const struct timespec *times) {
    int file = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    ssize_t size = (ssize_t)strlen(text);
    if (file < 0 || write(file, text, size) != size) die(path);
    if (times && futimens(file, times)) die(path);
    if (close(file)) die(path);
}

static void set_time(const char *path, const struct timespec *times) {
    if (utimensat(AT_FDCWD, path, times, 0)) die(path);
}

/* Runs in `processes` children with their number; fails if one of them does. */
static void side_by_side(int processes, void (*work)(int, int, char **), char **words) {
    int failed = 0, status;
    for (int number = 0; number < processes; number++) {
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (pid == 0) {
            work(number, processes, words);
            exit(0);
        }
    }
    while (wait(&status) > 0) failed |= status != 0;
    if (failed) exit(1);
}

static void make_part(int number, int processes, char **words) {
    int a = atoi(words[0]), b = atoi(words[1]), c = atoi(words[2]);
    struct timespec times[2] = {{atol(words[3]), 0}, {atol(words[3]), 0}};
    char path[128], text[64];
    for (int i = number; i < a; i += processes) {
        sprintf(path, "d%02d", i);
        make_directory(path);
        for (int j = 0; j < b; j++) {
            sprintf(path, "d%02d/s%03d", i, j);
            make_directory(path);
            for (int k = 0; k < c; k++) {
                sprintf(path, "d%02d/s%03d/p%04d", i, j, k);
                make_directory(path);
                sprintf(path, "d%02d/s%03d/p%04d/index.html", i, j, k);
                sprintf(text, "page %d %d %d\n", i, j, k);
                make_file(path, text, times);
                sprintf(path, "d%02d/s%03d/p%04d", i, j, k);
                set_time(path, times);
            }
            sprintf(path, "d%02d/s%03d", i, j);
            set_time(path, times);
            if (write(1, "d\n", 2) != 2) die("stdout");
        }
        sprintf(path, "d%02d", i);
        set_time(path, times);
    }
}

static void make_files(int number, int processes, char **words) {
    int count = atoi(words[0]), per = atoi(words[1]);
    char path[128];
    for (int folder = number; folder * per < count; folder += processes) {
        sprintf(path, "e%05d", folder);
        make_directory(path);
        for (int file = folder * per; file < (folder + 1) * per && file < count; file++) {
            sprintf(path, "e%05d/f%07d", folder, file);
            make_file(path, "a page\n", NULL);
        }
    }
}

static void rewrite(int per) {
    char path[128], line[128];
    int from, to;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%d %d", &from, &to) != 2) exit(2);
        for (int number = from; number < to; number++) {
            sprintf(path, "e%05d/f%07d", number / per, number);
            int file = open(path, O_WRONLY);
            if (file < 0 || write(file, "b page\n", 7) != 7) die(path);
            close(file);
        }
        puts("done");
        fflush(stdout);
    }
}

int main(int count, char **words) {
    umask(022);
    if (count < 4) return 2;
    make_directory(words[2]);
    if (chdir(words[2])) die(words[2]);
    if (count == 7 && !strcmp(words[1], "tree")) {
        struct timespec times[2] = {{atol(words[6]), 0}, {atol(words[6]), 0}};
        side_by_side(4, make_part, words + 3);
        set_time(".", times);
    } else if (count == 6 && !strcmp(words[1], "files")) {
        side_by_side(atoi(words[3]), make_files, words + 4);
    } else if (!strcmp(words[1], "rewrite")) {
        rewrite(atoi(words[3]));
    } else {
        return 2;
    }
    return 0;
}
