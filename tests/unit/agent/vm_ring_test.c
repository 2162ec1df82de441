/* SPDX-License-Identifier: Apache-2.0 */
/* The console's ring: nothing is lost silently, whoever loses. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_ring.h"

static struct vm_ring ring;
static char out[VM_CONSOLE_RING_BYTES * 4];

static void setup(void)
{
	vm_ring_init(&ring);
}

static void teardown(void)
{
	vm_ring_fini(&ring);
}

TestSuite(vm_ring, .init = setup, .fini = teardown);

/* Everything out of the ring, as text. */
static size_t drain(void)
{
	size_t used = 0;

	for (;;) {
		const uint8_t *bytes = NULL;
		size_t size_bytes = vm_ring_span(&ring, &bytes);

		if (size_bytes == 0)
			break;
		memcpy(out + used, bytes, size_bytes);
		used += size_bytes;
		vm_ring_consume(&ring, size_bytes);
	}
	out[used] = '\0';
	return used;
}

static void fill(char with, size_t size_bytes)
{
	uint8_t *bytes = malloc(size_bytes);

	memset(bytes, with, size_bytes);
	(void)vm_ring_put(&ring, bytes, size_bytes);
	free(bytes);
}

static uint64_t dropped(void)
{
	uint64_t put_bytes = 0;
	uint64_t dropped_bytes = 0;

	vm_ring_counts(&ring, &put_bytes, &dropped_bytes);
	return dropped_bytes;
}

Test(vm_ring, wakes_only_when_it_was_empty)
{
	cr_assert_not(vm_ring_put(&ring, (const uint8_t *)"", 0));
	cr_assert(vm_ring_put(&ring, (const uint8_t *)"a", 1));
	cr_assert_not(vm_ring_put(&ring, (const uint8_t *)"b", 1));
	cr_assert_eq(drain(), 2);
	cr_assert_str_eq(out, "ab");
	cr_assert(vm_ring_put(&ring, (const uint8_t *)"c", 1));
}

Test(vm_ring, wraps)
{
	for (int i = 0; i < 10; i++) {
		fill('x', VM_CONSOLE_RING_BYTES - 7);
		cr_assert_eq(drain(), VM_CONSOLE_RING_BYTES - 7);
		cr_assert_eq(strspn(out, "x"), VM_CONSOLE_RING_BYTES - 7);
	}
	cr_assert_eq(dropped(), 0);
}

Test(vm_ring, newest_lose_and_are_marked)
{
	fill('a', VM_CONSOLE_RING_BYTES - 10);
	fill('b', 30); /* 20 too many */
	fill('c', 5);  /* no room for a mark either */
	cr_assert_eq(dropped(), 25);
	cr_assert_geq(drain(), (size_t)VM_CONSOLE_RING_BYTES);
	cr_assert_str_eq(out + VM_CONSOLE_RING_BYTES - 10,
			 "bbbbbbbbbb\n[godwit: 25 bytes of console output lost]\n");
	fill('d', 3);
	(void)drain();
	cr_assert_str_eq(out, "ddd");
}

Test(vm_ring, mark_comes_before_later_bytes)
{
	fill('a', VM_CONSOLE_RING_BYTES + 1);
	{
		const uint8_t *bytes = NULL;

		cr_assert_gt(vm_ring_span(&ring, &bytes), 200);
		vm_ring_consume(&ring, 200);
	}
	fill('d', 3);
	(void)drain();
	cr_assert_str_eq(out + VM_CONSOLE_RING_BYTES - 200,
			 "\n[godwit: 1 bytes of console output lost]\nddd");
}

Test(vm_ring, oldest_lose_while_nobody_reads)
{
	vm_ring_keep_newest(&ring, true);
	fill('a', 100);
	fill('b', VM_CONSOLE_RING_BYTES);
	cr_assert_eq(dropped(), 100);
	vm_ring_keep_newest(&ring, false);
	(void)drain();
	cr_assert_eq(strncmp(out, "\n[godwit: ", 10), 0);
	cr_assert_eq(out[strlen(out) - 1], 'b');
	/* The mark took the place of some, and says so. */
	cr_assert_eq(strtoull(out + 10, NULL, 10), dropped());
	cr_assert_eq(strlen(strchr(out, 'b')) > 0, 1);
}

Test(vm_ring, more_than_the_ring_at_once)
{
	vm_ring_keep_newest(&ring, true);
	fill('a', VM_CONSOLE_RING_BYTES * 2);
	cr_assert_eq(dropped(), VM_CONSOLE_RING_BYTES);
	vm_ring_keep_newest(&ring, false);
	cr_assert_eq(drain(), VM_CONSOLE_RING_BYTES);
}

Test(vm_ring, discard_counts)
{
	fill('a', 10);
	vm_ring_discard(&ring);
	cr_assert_eq(dropped(), 10);
	fill('b', 1);
	(void)drain();
	cr_assert_str_eq(out, "\n[godwit: 10 bytes of console output lost]\nb");
}

static void *writer(void *context)
{
	uint8_t byte = *(const uint8_t *)context;

	for (int i = 0; i < 20000; i++)
		(void)vm_ring_put(&ring, &byte, 1);
	return NULL;
}

Test(vm_ring, several_writers_one_reader)
{
	static const uint8_t letters[2] = { 'a', 'b' };
	pthread_t threads[2];
	size_t got = 0;

	for (int i = 0; i < 2; i++)
		cr_assert_eq(
			pthread_create(&threads[i], NULL, writer, (void *)(uintptr_t)&letters[i]),
			0);
	while (got < 1000)
		got += drain();
	for (int i = 0; i < 2; i++)
		(void)pthread_join(threads[i], NULL);
	got += drain();
	cr_assert_eq(got, 40000);
	cr_assert_eq(dropped(), 0);
}
