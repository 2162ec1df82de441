/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fault/fault_step.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const char *wanted;
static uint32_t left;
static bool gone_on;

void fault_say(const char *format, ...)
{
	char line[700];
	va_list args;
	int length = 0;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	if (length < 0)
		return;
	if ((size_t)length > sizeof(line) - 2)
		length = (int)sizeof(line) - 2;
	line[length] = '\n';
	(void)!base_write_all(STDOUT_FILENO, line, (size_t)length + 1);
}

void fault_step_at(const char *name, uint32_t skip)
{
	wanted = name;
	left = skip;
}

void fault_step_reached(const char *name)
{
	BASE_LOCKED(&lock);

	fault_say("at %s", name);
	while (!gone_on)
		(void)base_cond_wait(&changed, &lock, BASE_TIME_NEVER);
}

void fault_step(const char *name)
{
	{
		BASE_LOCKED(&lock);

		if (wanted == NULL || strcmp(wanted, name) != 0)
			return;
		if (left > 0) {
			left--;
			return;
		}
		wanted = NULL;
	}
	fault_step_reached(name);
}

void fault_step_go(void)
{
	BASE_LOCKED(&lock);

	gone_on = true;
	(void)pthread_cond_broadcast(&changed);
}
