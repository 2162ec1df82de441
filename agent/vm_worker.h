/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker: one machine, its console, its control socket and its leash, from
 * start to end.
 */
#ifndef AGENT_VM_WORKER_H
#define AGENT_VM_WORKER_H

#include "agent/vm_config.h"
#include "agent/vm_exit.h"
#include "base/error.h"

/**
 * vm_worker_run - run the machine of @config until it ends.  Main thread, the only one.
 *
 * Order: close foreign descriptors; open what needs privileges; make the machine; bind
 * the leash; lock down; boot or restore; run.  When it returns nothing is left of it:
 * no socket, no lock, no thread, the terminal as before; a console file that it made
 * stays only when the guest has run.
 *
 * Return: an exit code of vm_exit.h.  @err is filled when the worker never got to run
 * (the caller shows it); failures later are logged here.
 */
enum vm_exit vm_worker_run(const struct vm_config *config, struct base_error *err);

#endif
