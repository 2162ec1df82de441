/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder's side of the leash: it owns the page and is the only one who writes it.
 * One thread at a time.  Every update is the whole page, so that a half-written one
 * never validates, followed by a wake-up of the worker.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/leash_priv.h"

struct base_leash_holder {
	void *shared; /* the page, writable */
	int page_fd;  /* the page, read-only */
	int event_fd;
	struct base_leash_page page; /* what was written last */
};

void base_leash_holder_free(struct base_leash_holder *holder)
{
	if (holder == NULL)
		return;
	if (holder->shared != NULL)
		(void)munmap(holder->shared, BASE_LEASH_PAGE_BYTES);
	base_closep(&holder->event_fd);
	base_closep(&holder->page_fd);
	free(holder);
}

BASE_DEFINE_FREEP(struct base_leash_holder, base_leash_holder_free);

/* Map the page for writing and open it once more for reading, for the worker. */
static int page_make(struct base_leash_holder *holder, struct base_error *err)
{
	BASE_CLOSE int fd = memfd_create("godwit-leash", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char path[64];
	void *shared = NULL;

	if (fd < 0)
		return base_fail_errno(err, -errno, "leash page: memfd_create");
	if (ftruncate(fd, BASE_LEASH_PAGE_BYTES) < 0)
		return base_fail_errno(err, -errno, "leash page: ftruncate");
	/* The size is fixed for ever: no reader can be made to fault. */
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return base_fail_errno(err, -errno, "leash page: seal");
	shared = mmap(NULL, BASE_LEASH_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		return base_fail_errno(err, -errno, "leash page: mmap");
	holder->shared = shared;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	holder->page_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (holder->page_fd < 0)
		return base_fail_errno(err, -errno, "leash page: open '%s' for reading", path);
	return 0;
}

static int terms_check(const struct base_leash_terms *terms, struct base_error *err)
{
	if (terms->soft_ns > terms->hard_ns)
		return base_fail(err, -EINVAL,
				 "leash: soft deadline %" PRIu64 " after the hard one %" PRIu64,
				 terms->soft_ns, terms->hard_ns);
	return 0;
}

/* Write @terms as the next update and wake the worker. */
static int publish(struct base_leash_holder *holder, const struct base_leash_terms *terms,
		   struct base_error *err)
{
	const uint64_t one = 1;

	holder->page.sequence += 2;
	holder->page.terms = *terms;
	base_leash_page_write(holder->shared, &holder->page);
	/* EAGAIN means that the counter is full: the worker is awake anyway. */
	if (write(holder->event_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		return base_fail_errno(err, -errno, "leash: wake the worker");
	return 0;
}

int base_leash_holder_new(const struct base_leash_terms *terms,
			  struct base_leash_holder **ret_holder, struct base_error *err)
{
	BASE_CLEANUP(base_leash_holder_freep) struct base_leash_holder *holder = NULL;
	int code = terms_check(terms, err);

	if (code < 0)
		return code;
	holder = calloc(1, sizeof(*holder));
	if (holder == NULL)
		return base_fail(err, -ENOMEM, "leash holder: no memory");
	holder->page_fd = -1;
	holder->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (holder->event_fd < 0)
		return base_fail_errno(err, -errno, "leash: eventfd");
	code = page_make(holder, err);
	if (code < 0)
		return code;
	code = publish(holder, terms, err);
	if (code < 0)
		return code;
	*ret_holder = base_take(&holder);
	return 0;
}

int base_leash_holder_page_fd(const struct base_leash_holder *holder)
{
	return holder->page_fd;
}

int base_leash_holder_event_fd(const struct base_leash_holder *holder)
{
	return holder->event_fd;
}

int base_leash_extend(struct base_leash_holder *holder, uint64_t soft_ns, uint64_t hard_ns,
		      bool may_shorten, struct base_error *err)
{
	struct base_leash_terms terms = holder->page.terms;
	int code = 0;

	if (!may_shorten && (soft_ns < terms.soft_ns || hard_ns < terms.hard_ns))
		return base_fail(err, -EINVAL,
				 "leash: deadlines %" PRIu64 ", %" PRIu64 " before %" PRIu64
				 ", %" PRIu64 " in force",
				 soft_ns, hard_ns, terms.soft_ns, terms.hard_ns);
	terms.soft_ns = soft_ns;
	terms.hard_ns = hard_ns;
	code = terms_check(&terms, err);
	return code < 0 ? code : publish(holder, &terms, err);
}

int base_leash_thaw(struct base_leash_holder *holder, struct base_error *err)
{
	struct base_leash_terms terms = holder->page.terms;
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

	if (now_ns >= terms.soft_ns)
		return base_fail(err, -EPROTO,
				 "leash: thaw at %" PRIu64 " after the soft deadline %" PRIu64,
				 now_ns, terms.soft_ns);
	terms.thaw_count++;
	terms.thaw_until_ns = terms.soft_ns;
	return publish(holder, &terms, err);
}

int base_leash_revoke(struct base_leash_holder *holder, uint64_t new_epoch, struct base_error *err)
{
	struct base_leash_terms terms = holder->page.terms;

	if (new_epoch <= terms.epoch)
		return base_fail(err, -EINVAL,
				 "leash: revoke with epoch %" PRIu64 ", not above %" PRIu64,
				 new_epoch, terms.epoch);
	terms.epoch = new_epoch;
	return publish(holder, &terms, err);
}
