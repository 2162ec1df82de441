/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int open_null(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	return fd;
}

Test(cleanup, descriptor_is_closed_at_the_end_of_the_scope)
{
	int number = -1;

	{
		BASE_CLOSE int fd = open_null();

		number = fd;
	}
	cr_assert_not(is_open(number));
}

Test(cleanup, taken_descriptor_stays_open)
{
	int number = -1;

	{
		BASE_CLOSE int fd = open_null();

		number = base_take_fd(&fd);
		cr_assert_eq(fd, -1);
	}
	cr_assert(is_open(number));
	(void)close(number);
}

Test(cleanup, close_keeps_errno_and_accepts_negative)
{
	int fd = open_null();
	int none = -EBADF;

	errno = EXDEV;
	base_closep(&fd);
	cr_assert_eq(errno, EXDEV);
	cr_assert_eq(fd, -1);
	base_closep(&none);
	cr_assert_eq(errno, EXDEV);
}

Test(cleanup, taken_pointer_leaves_null)
{
	char *kept = NULL;

	{
		BASE_FREE char *text = malloc(8);

		cr_assert_not_null(text);
		kept = base_take(&text);
		cr_assert_null(text);
	}
	kept[0] = 'x'; /* the address sanitizer would know if it had been freed */
	free(kept);
}

static int releases;

struct thing {
	int unused;
};

static void thing_free(struct thing *thing)
{
	releases += thing != NULL ? 1 : 0;
}

BASE_DEFINE_FREEP(struct thing, thing_free);

Test(cleanup, defined_release_runs_once_for_what_was_not_taken)
{
	struct thing here = { .unused = 0 };

	{
		BASE_CLEANUP(thing_freep) struct thing *held = &here;
		BASE_CLEANUP(thing_freep) struct thing *given = &here;

		cr_assert_eq(base_take(&given), &here);
		(void)held;
	}
	cr_assert_eq(releases, 1);
}

Test(cleanup, stream_is_closed)
{
	int number = -1;

	{
		BASE_FCLOSE FILE *file = fopen("/dev/null", "re");
		BASE_FCLOSE FILE *none = NULL;

		cr_assert_not_null(file);
		number = fileno(file);
		(void)none;
	}
	cr_assert_not(is_open(number));
}

Test(cleanup, lock_ends_with_the_scope)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

	{
		BASE_LOCKED(&mutex);
		cr_assert_eq(pthread_mutex_trylock(&mutex), EBUSY);
	}
	cr_assert_eq(pthread_mutex_trylock(&mutex), 0);
	(void)pthread_mutex_unlock(&mutex);
}
