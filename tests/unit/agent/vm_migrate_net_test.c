/* SPDX-License-Identifier: Apache-2.0 */
/* Where a migration comes to: addresses in numbers, and nothing that would be looked up. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_migrate_net.h"

Test(vm_migrate_net, addresses)
{
	static const struct {
		const char *text;
		int family;
	} good[] = {
		{ "127.0.0.1:1", AF_INET },
		{ "255.255.255.255:65535", AF_INET },
		{ "[::1]:7011", AF_INET6 },
		{ "[2001:db8:1:2:3:4:5:6]:7011", AF_INET6 },
		{ "[::ffff:192.0.2.1]:7011", AF_INET6 },
	};
	static const char *const bad[] = {
		"",
		":",
		":7011",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:0",
		"127.0.0.1:65536",
		"127.0.0.1:7011x",
		"127.0.0.1:+1",
		"localhost:7011",
		"n1:7011",
		"127.0.0:7011",
		"::1:7011",
		"[::1]7011",
		"[::1:7011",
		"[127.0.0.1]:7011",
		"[]:7011",
		"[:7011",
		"]:7011",
		"[::1%lo]:7011",
		" 127.0.0.1:1",
		"127.0.0.1 :1",
		"256.0.0.1:1",
		"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:00]:1",
	};
	struct base_error err = { 0 };
	struct vm_address address;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		cr_assert_eq(vm_address_parse(good[i].text, &address, &err), 0, "%s: %s",
			     good[i].text, err.text);
		cr_assert_eq(address.socket.ss_family, good[i].family);
		cr_assert_str_eq(address.text, good[i].text);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(vm_address_parse(bad[i], &address, &err), -EINVAL, "%s", bad[i]);
		cr_assert_not_null(strstr(err.text, "expected ADDRESS:PORT"), "%s", err.text);
	}
}

/* A port that is free: of a socket that is bound to any. */
static void free_address(struct vm_address *ret_address)
{
	struct sockaddr_in any = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t bytes = sizeof(any);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[VM_ADDRESS_BYTES];

	cr_assert_eq(bind(fd, (struct sockaddr *)(void *)&any, sizeof(any)), 0);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)(void *)&any, &bytes), 0);
	(void)close(fd);
	(void)snprintf(text, sizeof(text), "127.0.0.1:%u", (unsigned)ntohs(any.sin_port));
	cr_assert_eq(vm_address_parse(text, ret_address, NULL), 0);
}

Test(vm_migrate_net, connects_to_who_listens)
{
	struct base_error err = { 0 };
	struct vm_address address;
	int on = 0;
	socklen_t bytes = sizeof(on);
	int listening = -1;
	int fd = -1;
	int other = -1;

	free_address(&address);
	cr_assert_eq(vm_address_connect(&address, 1000, &fd, &err), -ECONNREFUSED);
	cr_assert_not_null(strstr(err.text, address.text), "%s", err.text);
	cr_assert_eq(vm_address_listen(&address, &listening, &err), 0, "%s", err.text);
	cr_assert_eq(vm_address_listen(&address, &other, &err), -EADDRINUSE);
	cr_assert_eq(vm_address_connect(&address, 1000, &fd, &err), 0, "%s", err.text);
	cr_assert_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0, "it blocks");
	other = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(other, 0);
	/* Answers are small and waited for: on either side. */
	cr_assert_eq(getsockopt(other, IPPROTO_TCP, TCP_NODELAY, &on, &bytes), 0);
	cr_assert_neq(on, 0);
	cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &bytes), 0);
	cr_assert_neq(on, 0);
	(void)close(other);
	(void)close(fd);
	(void)close(listening);
}
