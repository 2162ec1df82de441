/* SPDX-License-Identifier: Apache-2.0 */
/* godwit: the command line.  See godwit(1). */
#include "agent/cli.h"

int main(int argc, char *argv[])
{
	return cli_main(cli_nouns, cli_noun_count, argc, argv);
}
