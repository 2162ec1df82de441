/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All nouns of godwit.
 */
#include "agent/cli_disk_priv.h"
#include "agent/cli_vm_priv.h"

const struct cli_noun cli_nouns[] = {
	{ .name = "disk",
	  .summary = "create, look at, check, convert and change virtual disks",
	  .text = "Works on disk images in VHDX, VHD and raw format, in any folder. A verb that "
		  "changes an image takes its lease first, so an image that a running VM writes "
		  "is refused with the name of who holds it. Sizes are bytes, or have a suffix K, "
		  "M, G, T or P (powers of 1024). A bar with rate and time left shows on a "
		  "terminal during long work.",
	  .exits = "For check, 1 also means that damage is left. For compare, 1 means that the "
		   "contents differ and 3 that they could not be compared.",
	  .verbs = cli_disk_verbs,
	  .verb_count = CLI_DISK_VERBS,
	  .args_bytes = sizeof(struct cli_disk_args) },
	{ .name = "vm",
	  .summary = "show a migration, and decide what one without a cluster has left open",
	  .text = "Works on what the workers of virtual machines tell, and keep in their state "
		  "directories.",
	  .exits = "For resolve without --owner, 3 means that a machine is in doubt.",
	  .verbs = cli_vm_verbs,
	  .verb_count = CLI_VM_VERBS,
	  .args_bytes = sizeof(struct cli_vm_args) },
};
const size_t cli_noun_count = sizeof(cli_nouns) / sizeof(cli_nouns[0]);
