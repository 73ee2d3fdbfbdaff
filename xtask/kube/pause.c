// The program of a pod's sandbox: it holds the namespaces of the pod, collects orphans, and ends when it is told to.

#define _POSIX_C_SOURCE 200809L

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) {
    (void)signal;
    _exit(0);
}

static void collect(int signal) {
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static int handle(int signal, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    return sigaction(signal, &action, NULL);
}

int main(void) {
    if (handle(SIGINT, end, 0) || handle(SIGTERM, end, 0) || handle(SIGCHLD, collect, SA_NOCLDSTOP)) {
        return EXIT_FAILURE;
    }
    for (;;) {
        pause();
    }
}
