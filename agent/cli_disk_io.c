/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of the main thread.
 */
#include "agent/cli_disk_priv.h"

static void request_done(struct disk_request *request, int result)
{
	struct cli_disk_wait *wait = request->context;

	wait->result = result;
	base_io_done(wait->loop, &wait->done);
}

void cli_disk_start(struct cli_disk *session, struct disk *disk, struct cli_disk_wait *wait,
		    void *data)
{
	wait->loop = session->loop;
	wait->done = false;
	wait->result = 0;
	wait->request.done = request_done;
	wait->request.context = wait;
	if (data != NULL) {
		wait->iov = (struct iovec){ data, wait->request.length_bytes };
		wait->request.iov = &wait->iov;
		wait->request.iov_count = 1;
	}
	disk_submit(disk, &wait->request);
}

int cli_disk_wait(struct cli_disk_wait *wait)
{
	base_io_wait(wait->loop, &wait->done);
	return wait->result;
}

int cli_disk_extents(struct cli_disk *session, struct disk *disk, const struct cli_disk_span *span,
		     struct disk_extent *extents, uint32_t capacity, uint32_t *ret_count)
{
	struct cli_disk_wait wait = {
		.request = { .op = DISK_MAP,
			     .offset_bytes = span->offset_bytes,
			     .length_bytes = span->length_bytes,
			     .extents = extents,
			     .extent_capacity = capacity },
	};
	int rc;

	cli_disk_start(session, disk, &wait, NULL);
	rc = cli_disk_wait(&wait);
	*ret_count = wait.request.extent_count;
	return rc;
}
