/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_map.h"

#include "migrate/mig_wire.h"

#define MAP_SECTORS (128ULL * (MIG_SPAN_BYTES / MIG_SECTOR_BYTES)) /* asked for at a time */

const struct mig_run *mig_map_seen(struct mig_map_cursor *cursor, uint16_t object, uint64_t sector)
{
	const struct mig_map *map = &cursor->map;

	if (cursor->object != object)
		return NULL;
	for (uint32_t i = cursor->run; i < map->run_count; i++)
		if (sector >= map->runs[i].first &&
		    sector - map->runs[i].first < map->runs[i].count) {
			cursor->run = i;
			return &map->runs[i];
		}
	return NULL;
}

static int look(struct mig_map_cursor *cursor, const struct mig_mapped *mapped, uint64_t sector,
		struct base_error *err)
{
	uint64_t left = mapped->sector_count - sector;
	struct mig_map *map = &cursor->map;
	int r = 0;

	map->first = sector;
	map->count = (uint32_t)(left < MAP_SECTORS ? left : MAP_SECTORS);
	map->run_count = 0;
	cursor->run = 0;
	cursor->object = 0;
	r = mapped->map(mapped->context, mapped->object, map, err);
	if (r < 0)
		return r;
	base_assert(map->run_count > 0 && map->run_count <= MIG_RUNS_MAX &&
		    map->runs[0].first == sector);
	cursor->object = mapped->object;
	return 0;
}

int mig_map_part(struct mig_map_cursor *cursor, const struct mig_mapped *mapped, uint64_t first,
		 uint64_t end, struct mig_run *ret_part, struct base_error *err)
{
	const struct mig_run *seen = mig_map_seen(cursor, mapped->object, first);
	uint64_t stop = 0;

	if (seen == NULL) {
		int r = look(cursor, mapped, first, err);

		if (r < 0)
			return r;
		seen = mig_map_seen(cursor, mapped->object, first);
	}
	base_assert(seen != NULL);
	stop = seen->first + seen->count < end ? seen->first + seen->count : end;
	*ret_part = (struct mig_run){ .first = first,
				      .count = (uint32_t)(stop - first),
				      .kind = seen->kind };
	return 0;
}
