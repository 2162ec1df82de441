/* SPDX-License-Identifier: Apache-2.0 */
/* The release functions behind the cleanup attributes. */
#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

void base_freep(void *held)
{
	void *pointer = NULL;

	/* @held is a pointer to a pointer of any type: reading it as void ** would alias. */
	memcpy(&pointer, held, sizeof(pointer));
	free(pointer);
}

void base_closep(int *fd)
{
	int saved_errno = errno;

	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
	errno = saved_errno;
}

void base_fclosep(FILE **file)
{
	int saved_errno = errno;

	if (*file != NULL)
		(void)fclose(*file);
	*file = NULL;
	errno = saved_errno;
}

pthread_mutex_t *base_lock(pthread_mutex_t *mutex)
{
	int code = pthread_mutex_lock(mutex);

	if (code != 0)
		base_bug("pthread_mutex_lock: error %d", code);
	return mutex;
}

void base_unlockp(pthread_mutex_t **mutex)
{
	int code = 0;

	if (*mutex == NULL)
		return;
	code = pthread_mutex_unlock(*mutex);
	if (code != 0)
		base_bug("pthread_mutex_unlock: error %d", code);
	*mutex = NULL;
}
