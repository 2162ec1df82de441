/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/leash_priv.h"
#include "tests/support/alloc_fail.h"

static struct base_leash_holder *holder;
static const void *view; /* what a worker sees */
static uint64_t now_ns;

static void begin(void)
{
	struct base_leash_terms terms = { .epoch = 7 };

	now_ns = base_clock_boot_ns(&base_clock_system);
	terms.soft_ns = now_ns + 3600 * BASE_NS_PER_SECOND;
	terms.hard_ns = terms.soft_ns + 5;
	cr_assert_eq(base_leash_holder_new(&terms, &holder, NULL), 0);
	view = mmap(NULL, BASE_LEASH_PAGE_BYTES, PROT_READ, MAP_SHARED,
		    base_leash_holder_page_fd(holder), 0);
	cr_assert_neq(view, MAP_FAILED);
}

static void end(void)
{
	base_leash_holder_free(holder);
}

static struct base_leash_page written(void)
{
	struct base_leash_page page = { .sequence = 0 };

	cr_assert_eq(base_leash_page_read(view, &page, NULL), 0);
	return page;
}

static uint64_t events(void)
{
	uint64_t count = 0;

	if (read(base_leash_holder_event_fd(holder), &count, sizeof(count)) < 0)
		cr_assert_eq(errno, EAGAIN);
	return count;
}

Test(leash_holder, first_page_is_there, .init = begin, .fini = end)
{
	struct base_leash_page page = written();

	cr_assert_eq(page.terms.epoch, 7);
	cr_assert_eq(page.terms.hard_ns, page.terms.soft_ns + 5);
	cr_assert_eq(page.sequence, 2);
}

Test(leash_holder, bad_terms)
{
	const struct base_leash_terms terms = { .epoch = 1, .soft_ns = 6, .hard_ns = 5 };
	struct base_error err = { .code = 0 };

	cr_assert_eq(base_leash_holder_new(&terms, &holder, &err), -EINVAL);
	cr_assert_eq(err.code, -EINVAL);
	cr_assert_null(holder);
	base_leash_holder_free(NULL);
}

Test(leash_holder, no_memory)
{
	const struct base_leash_terms terms = { .epoch = 1, .soft_ns = 5, .hard_ns = 5 };

	alloc_fail_at(0);
	cr_assert_eq(base_leash_holder_new(&terms, &holder, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
}

Test(leash_holder, the_worker_cannot_write_or_resize_the_page, .init = begin, .fini = end)
{
	int fd = base_leash_holder_page_fd(holder);

	cr_assert_eq(mmap(NULL, BASE_LEASH_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
		     MAP_FAILED);
	cr_assert_eq(write(fd, "x", 1), -1);
	cr_assert_eq(ftruncate(fd, 0), -1);
	cr_assert_eq(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK, F_SEAL_SHRINK);
	cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

Test(leash_holder, extension_is_written_and_announced, .init = begin, .fini = end)
{
	uint64_t soft_ns = written().terms.soft_ns;

	(void)events();
	cr_assert_eq(base_leash_extend(holder, soft_ns + 10, soft_ns + 20, false, NULL), 0);
	cr_assert_eq(events(), 1);
	cr_assert_eq(written().terms.soft_ns, soft_ns + 10);
	cr_assert_eq(written().terms.hard_ns, soft_ns + 20);
	cr_assert_eq(written().sequence, 4);
	cr_assert_eq(base_leash_extend(holder, BASE_TIME_NEVER, BASE_TIME_NEVER, false, NULL), 0);
	cr_assert_eq(written().terms.hard_ns, BASE_TIME_NEVER);
}

Test(leash_holder, deadlines_move_back_only_on_purpose, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	uint64_t soft_ns = written().terms.soft_ns;

	(void)events();
	cr_assert_eq(base_leash_extend(holder, soft_ns - 1, soft_ns + 9, false, &err), -EINVAL);
	cr_assert_eq(base_leash_extend(holder, soft_ns, soft_ns + 4, false, &err), -EINVAL);
	cr_assert_eq(base_leash_extend(holder, soft_ns + 9, soft_ns + 8, true, &err), -EINVAL);
	cr_assert_eq(err.code, -EINVAL);
	cr_assert_eq(written().sequence, 2, "nothing was written");
	cr_assert_eq(events(), 0);
	cr_assert_eq(base_leash_extend(holder, 1, 2, true, NULL), 0);
	cr_assert_eq(written().terms.soft_ns, 1);
}

Test(leash_holder, thaw_holds_until_the_soft_deadline_of_now, .init = begin, .fini = end)
{
	uint64_t soft_ns = written().terms.soft_ns;

	cr_assert_eq(base_leash_thaw(holder, NULL), 0);
	cr_assert_eq(written().terms.thaw_count, 1);
	cr_assert_eq(written().terms.thaw_until_ns, soft_ns);
	cr_assert_eq(base_leash_extend(holder, soft_ns + 10, soft_ns + 20, false, NULL), 0);
	cr_assert_eq(written().terms.thaw_until_ns, soft_ns, "an extension does not renew it");
}

Test(leash_holder, thaw_after_the_soft_deadline_is_refused, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(base_leash_extend(holder, now_ns, BASE_TIME_NEVER, true, NULL), 0);
	cr_assert_eq(base_leash_thaw(holder, &err), -EPROTO);
	cr_assert_eq(err.code, -EPROTO);
	cr_assert_eq(written().terms.thaw_count, 0);
}

Test(leash_holder, revoke_raises_the_epoch, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };

	(void)events();
	cr_assert_eq(base_leash_revoke(holder, 7, &err), -EINVAL);
	cr_assert_eq(base_leash_revoke(holder, 6, &err), -EINVAL);
	cr_assert_eq(err.code, -EINVAL);
	cr_assert_eq(events(), 0);
	cr_assert_eq(base_leash_revoke(holder, 8, NULL), 0);
	cr_assert_eq(written().terms.epoch, 8);
	cr_assert_eq(events(), 1);
}

Test(leash_holder, a_worker_that_never_reads_does_not_hinder, .init = begin, .fini = end)
{
	const uint64_t full = UINT64_MAX - 1;

	(void)events();
	cr_assert_eq(write(base_leash_holder_event_fd(holder), &full, sizeof(full)), 8);
	cr_assert_eq(base_leash_thaw(holder, NULL), 0);
	cr_assert_eq(written().terms.thaw_count, 1);
}
