/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 through qemu-img: a child process that writes a raw file.  Main thread; blocks.
 */
#ifndef AGENT_CLI_DISK_QEMU_H
#define AGENT_CLI_DISK_QEMU_H

#include "agent/cli_progress.h"
#include "base/error.h"

/**
 * cli_qemu_safe - whether the qcow2 image @path is complete in itself.
 * -EPROTO it names other files, which could be any file of the host; -EBADMSG no qcow2.
 */
BASE_MUST_CHECK int cli_qemu_safe(const char *path, struct base_error *err);

/**
 * cli_qemu_to_raw - write the content of the qcow2 image @from into the new sparse raw file @to.
 * @from, @to: absolute; not changed.  @progress is stepped in percent.
 * -ENOPKG qemu-img is not installed (the text says which package); -ECANCELED a stop was wanted;
 * -EIO qemu-img failed: its own last line is in the text.  On failure @to may be there in part.
 */
BASE_MUST_CHECK int cli_qemu_to_raw(char *from, char *to, struct cli_progress *progress,
				    struct base_error *err);

#endif
