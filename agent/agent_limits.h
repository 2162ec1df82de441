/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every limit of the agent folder, with its reason.
 */
#ifndef AGENT_AGENT_LIMITS_H
#define AGENT_AGENT_LIMITS_H

/* Configuration. */
#define VM_CONFIG_FILE_BYTES_MAX  65536u /* the largest sensible file is below 4 KiB */
#define VM_CONFIG_VALUE_BYTES_MAX 4096u  /* a path (PATH_MAX) or a kernel command line */
#define VM_CONFIG_KEYS_MAX        64u    /* rows of the key table; one bit each while parsing */
#define VM_PATH_BYTES             4096u  /* PATH_MAX, with its zero */
#define VM_PEERS_BYTES            2048u  /* names of hosts that a VM may come from */

/* What the workers of a host share, unless the configuration names another folder. */
#define VM_RUN_DIR     "/run/godwit"
#define VM_MIGRATE_DIR VM_RUN_DIR "/migrations"

/* Devices. */
#define VM_CONTROLLERS     4u  /* as many SCSI controllers as a Hyper-V machine may have */
#define VM_DISKS_MAX       64u /* configured, and at a time: a full controller */
#define VM_NICS_MAX        8u  /* as many cards as a Hyper-V machine may have */
#define VM_STORES_MAX      16u /* folders with disks; each keeps threads and a descriptor */
#define VM_NIC_QUEUES_MAX  16u /* one per processor up to what a card offers */
#define VM_IO_THREADS_MAX  16u
#define VM_IO_THREADS_AUTO 4u  /* beyond that they wait for the same devices */
#define VM_INTERFACE_BYTES 16u /* IFNAMSIZ: a network interface's name, with its zero */

/* Sockets: sun_path is 108 bytes with its zero (unix(7)). */
#define VM_SOCKET_PATH_BYTES 108u

/* Control socket. */
#define VM_CONTROL_LINE_BYTES_MAX    65536u     /* a command with a path is below 5 KiB */
#define VM_CONTROL_CLIENTS_MAX       16u        /* an agent, a few tools; each may hold a backlog */
#define VM_CONTROL_BACKLOG_BYTES_MAX (1u << 20) /* answers a client has not read: then dropped */
#define VM_CONTROL_ARGS_MAX          20u        /* arguments of one command */
#define VM_CONTROL_TEXT_BYTES        256u       /* a text argument: NAME_MAX with its zero */
#define VM_CONTROL_COMMANDS_MAX      48u        /* rows of the command table */
#define VM_DUMP_BYTES_MAX            (768u << 10) /* of the text; escaped it fits the backlog */

/* Console. */
#define VM_CONSOLE_RING_BYTES  65536u /* 3 s of a guest that prints as fast as exits allow */
#define VM_CONSOLE_INPUT_BYTES 4096u  /* typed ahead while the guest's receiver is full */
#define VM_CONSOLE_FLUSH_MS    2000u  /* how long the end waits for a terminal that is stuck */

/* Jobs: changes of the machine that wait for the one before. */
#define VM_JOBS_MAX 64u /* more waiting than clients can have asked for in good faith */

#define VM_ASK_THREADS 2u /* a shutdown and a checkpoint may wait at the same time */

/* Lock-down: threads exist by then; each must drop its capabilities. */
#define VM_SANDBOX_DROP_TRIES 2000u /* 1 ms apart */

#endif
