/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of a migration. */
#include "agent/vm_migrate_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_config_priv.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define LISTEN_BACKLOG 32 /* channels of a migration, and strangers */

static int bad_address(const char *text, struct base_error *err)
{
	return base_fail(err, -EINVAL,
			 "'%s': expected ADDRESS:PORT in numbers, such as 192.0.2.1:7011 or "
			 "[2001:db8::1]:7011",
			 vm_config_show(text, strlen(text)).text);
}

static bool parse_host(const char *host, uint16_t port, struct vm_address *address)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		memcpy(&address->socket, &v4, sizeof(v4));
		address->socket_bytes = sizeof(v4);
		return true;
	}
	if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
		memcpy(&address->socket, &v6, sizeof(v6));
		address->socket_bytes = sizeof(v6);
		return true;
	}
	return false;
}

int vm_address_parse(const char *text, struct vm_address *ret_address, struct base_error *err)
{
	struct vm_address address = { .socket_bytes = 0 };
	const char *colon = strrchr(text, ':');
	const char *begin = text;
	const char *end = colon;
	char host[VM_ADDRESS_BYTES];
	uint64_t port = 0;
	bool v6 = text[0] == '[';

	if (colon == NULL || strlen(text) >= sizeof(address.text) ||
	    !vm_config_number(colon + 1, strlen(colon + 1), &port) || port == 0 ||
	    port > UINT16_MAX)
		return bad_address(text, err);
	if (v6) {
		begin++;
		end--;
		if (end <= begin || *end != ']')
			return bad_address(text, err);
	}
	(void)snprintf(host, sizeof(host), "%.*s", (int)(end - begin), begin);
	if (!parse_host(host, (uint16_t)port, &address) ||
	    (address.socket.ss_family == AF_INET6) != v6)
		return bad_address(text, err);
	(void)snprintf(address.text, sizeof(address.text), "%s", text);
	*ret_address = address;
	return 0;
}

static bool has_address(const struct vm_addresses *addresses, const struct vm_address *address)
{
	for (uint32_t i = 0; i < addresses->count; i++)
		if (memcmp(&addresses->list[i].socket, &address->socket, sizeof(address->socket)) ==
		    0)
			return true;
	return false;
}

int vm_addresses_parse(const char *text, struct vm_addresses *ret_addresses, struct base_error *err)
{
	struct vm_addresses addresses = { .count = 0 };
	const char *at = text;

	for (;;) {
		size_t length = strcspn(at, ",");
		char one[VM_ADDRESS_BYTES];
		struct vm_address address;
		int code = 0;

		if (length >= sizeof(one))
			return bad_address(at, err);
		memcpy(one, at, length);
		one[length] = '\0';
		code = vm_address_parse(one, &address, err);
		if (code < 0)
			return code;
		if (has_address(&addresses, &address))
			return base_fail(err, -EINVAL, "'%s': expected each ADDRESS:PORT once",
					 one);
		if (addresses.count == VM_ADDRESSES_MAX)
			return base_fail(err, -EINVAL, "'%s': expected at most %u of ADDRESS:PORT",
					 one, VM_ADDRESSES_MAX);
		addresses.list[addresses.count++] = address;
		if (at[length] == '\0')
			break;
		at += length + 1;
	}
	*ret_addresses = addresses;
	return 0;
}

void vm_address_host(const struct vm_address *address, char ret_text[VM_ADDRESS_BYTES])
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	memcpy(&v4, &address->socket, sizeof(v4));
	memcpy(&v6, &address->socket, sizeof(v6));
	ret_text[0] = '\0';
	if (address->socket.ss_family == AF_INET)
		(void)inet_ntop(AF_INET, &v4.sin_addr, ret_text, VM_ADDRESS_BYTES);
	else
		(void)inet_ntop(AF_INET6, &v6.sin6_addr, ret_text, VM_ADDRESS_BYTES);
}

int vm_address_listen(const struct vm_address *address, int *ret_fd, struct base_error *err)
{
	const int on = 1;
	BASE_CLOSE int fd =
		socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* Answers are small and waited for; what is accepted inherits the option. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
	    bind(fd, (const struct sockaddr *)(const void *)&address->socket,
		 address->socket_bytes) < 0 ||
	    listen(fd, LISTEN_BACKLOG) < 0)
		return base_fail_errno(err, -errno, "listen on %s", address->text);
	*ret_fd = base_take_fd(&fd);
	return 0;
}

/* The connection's own result, once it has one. */
static int wait_connected(int fd, uint32_t timeout_ms)
{
	uint64_t end_ns = base_clock_boot_ns(&base_clock_system) + timeout_ms * BASE_NS_PER_MS;
	int code = 0;
	socklen_t code_bytes = sizeof(code);

	for (;;) {
		struct pollfd wait = { .fd = fd, .events = POLLOUT };
		uint64_t now_ns = base_clock_boot_ns(&base_clock_system);
		int ready = 0;

		if (now_ns >= end_ns)
			return -ETIMEDOUT;
		ready = poll(&wait, 1, (int)((end_ns - now_ns) / BASE_NS_PER_MS) + 1);
		if (ready < 0 && errno != EINTR)
			return -errno;
		if (ready > 0)
			break;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &code_bytes) < 0)
		return -errno;
	return -code;
}

int vm_address_connect(const struct vm_address *address, uint32_t timeout_ms, int *ret_fd,
		       struct base_error *err)
{
	const int on = 1;
	BASE_CLOSE int fd =
		socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int code = 0;

	if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		return base_fail_errno(err, -errno, "connect to %s", address->text);
	if (connect(fd, (const struct sockaddr *)(const void *)&address->socket,
		    address->socket_bytes) < 0)
		code = errno == EINPROGRESS || errno == EINTR ? wait_connected(fd, timeout_ms)
							      : -errno;
	if (code == 0 && fcntl(fd, F_SETFL, 0) < 0)
		code = -errno;
	if (code < 0)
		return base_fail_errno(err, code, "connect to %s", address->text);
	*ret_fd = base_take_fd(&fd);
	return 0;
}
