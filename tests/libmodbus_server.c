/* A Modbus TCP server on libmodbus for the tests: it shares no code with pymodbus or pyModbusTCP.

   Standard input, one command a line:        standard output, one line each:
     get ADDRESS COUNT                          values V ...
     set ADDRESS V ...                          done
     coil ADDRESS                               values V
     coils ADDRESS V ...                        done
     readonly 0|1                               done       (writes are refused with exception 6)
     nocoils 0|1                                done       (coils alone are refused with exception 2)
     stop | start                               done       (connections are cut, nobody listens | listen)
   and, for every write request that it executes,
     write NANOSECONDS FUNCTION ADDRESS V ...   (CLOCK_MONOTONIC)
   The first line is `port N`. It ends with its standard input. */
#include <errno.h>
#include <modbus.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 16, LINE = 8192 };

static modbus_t *modbus;
static modbus_mapping_t *registers;
static int listener = -1, port, open_sockets[CONNECTIONS];
static bool read_only, no_coils;

static void start(void)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    modbus = modbus_new_tcp("127.0.0.1", port);
    listener = modbus_tcp_listen(modbus, CONNECTIONS);
    if (listener < 0) {
        fprintf(stderr, "cannot listen on port %d: %s\n", port, modbus_strerror(errno));
        exit(1);
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    port = ntohs(address.sin_port);
}

static void stop(void)
{
    for (int i = 0; i < CONNECTIONS; i++) {
        if (open_sockets[i] >= 0)
            close(open_sockets[i]);
        open_sockets[i] = -1;
    }
    close(listener);
    listener = -1;
    modbus_free(modbus);
}

static void tell_of_write(const uint8_t *request)
{
    int function = request[7], address = (request[8] << 8) + request[9], count = (request[10] << 8) + request[11];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (function != 5 && function != 6 && function != 15 && function != 16)
        return;
    printf("write %lld %d %d", now.tv_sec * 1000000000LL + now.tv_nsec, function, address);
    for (int i = 0; i < (function > 6 ? count : 1); i++)
        printf(" %d", function % 10 == 5 ? registers->tab_bits[address + i] : registers->tab_registers[address + i]);
    printf("\n");
}

static bool serve(int connection)
{
    uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_set_socket(modbus, connection);
    int length = modbus_receive(modbus, request);
    if (length < 0)
        return false;
    if (length == 0)
        return true;
    if (read_only && request[7] > 4)
        return modbus_reply_exception(modbus, request, MODBUS_EXCEPTION_SLAVE_OR_SERVER_BUSY) >= 0;
    if (no_coils && request[7] == 15)
        return modbus_reply_exception(modbus, request, MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS) >= 0;
    int replied = modbus_reply(modbus, request, length, registers);
    if (replied != 9) /* an exception; -1 is a reply that found nobody, to a request that was executed */
        tell_of_write(request);
    return replied >= 0;
}

static void obey(char *line)
{
    char *word = strtok(line, " \n");
    int numbers[LINE / 2], count = 0;
    for (char *next; (next = strtok(NULL, " \n")) != NULL;)
        numbers[count++] = atoi(next);
    if (!strcmp(word, "get") || !strcmp(word, "coil")) {
        bool coil = word[0] == 'c';
        printf("values");
        for (int i = 0; i < (coil ? 1 : numbers[1]); i++)
            printf(" %d", coil ? registers->tab_bits[numbers[0]] : registers->tab_registers[numbers[0] + i]);
        printf("\n");
        return;
    }
    if (!strcmp(word, "set"))
        for (int i = 1; i < count; i++)
            registers->tab_registers[numbers[0] + i - 1] = numbers[i];
    else if (!strcmp(word, "coils"))
        for (int i = 1; i < count; i++)
            registers->tab_bits[numbers[0] + i - 1] = numbers[i];
    else if (!strcmp(word, "readonly"))
        read_only = numbers[0];
    else if (!strcmp(word, "nocoils"))
        no_coils = numbers[0];
    else if (!strcmp(word, "stop"))
        stop();
    else if (!strcmp(word, "start"))
        start();
    printf("done\n");
}

static void accept_one(void)
{
    int connection = modbus_tcp_accept(modbus, &listener);
    for (int i = 0; i < CONNECTIONS && connection >= 0; i++)
        if (open_sockets[i] < 0) {
            open_sockets[i] = connection;
            return;
        }
    if (connection >= 0)
        close(connection);
}

int main(int argc, char **argv)
{
    char line[LINE];
    port = argc > 1 ? atoi(argv[1]) : 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0); /* select() must see what has not been read yet */
    memset(open_sockets, -1, sizeof open_sockets);
    registers = modbus_mapping_new(2000, 0, 2000, 0);
    start();
    printf("port %d\n", port);
    for (;;) {
        fd_set wanted;
        int highest = listener > STDIN_FILENO ? listener : STDIN_FILENO;
        FD_ZERO(&wanted);
        FD_SET(STDIN_FILENO, &wanted);
        if (listener >= 0)
            FD_SET(listener, &wanted);
        for (int i = 0; i < CONNECTIONS; i++)
            if (open_sockets[i] >= 0) {
                FD_SET(open_sockets[i], &wanted);
                highest = open_sockets[i] > highest ? open_sockets[i] : highest;
            }
        if (select(highest + 1, &wanted, NULL, NULL, NULL) < 0)
            return 1;
        for (int i = 0; i < CONNECTIONS; i++)
            if (open_sockets[i] >= 0 && FD_ISSET(open_sockets[i], &wanted) && !serve(open_sockets[i])) {
                close(open_sockets[i]);
                open_sockets[i] = -1;
            }
        if (listener >= 0 && FD_ISSET(listener, &wanted))
            accept_one();
        if (FD_ISSET(STDIN_FILENO, &wanted)) {
            if (fgets(line, sizeof line, stdin) == NULL)
                return 0;
            obey(line);
        }
    }
}
