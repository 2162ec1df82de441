/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serial port: a 16550A at 0x3F8, IRQ 4.  Any thread; see platform_priv.h.
 *
 * Source: the register description of the 16550A data sheet (National PC16550D).
 * Differences from silicon, all invisible to a driver that works there:
 *   - the line is infinitely fast: a byte written has left at once, so the
 *     transmitter is always empty, and the divisor is only remembered;
 *   - bytes below the trigger level raise the character timeout at once, not after
 *     four character times;
 *   - input waits outside instead of overrunning, so errors come from loopback only.
 *
 * As on a PC, OUT2 gates the interrupt line, and loopback holds OUT2 inactive.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/platform_priv.h"

#define UART_PORTS         8u
#define UART_PAYLOAD_BYTES 28u

enum uart_register {
	REG_DATA, /* RBR, THR; divisor low with DLAB */
	REG_IER,  /* divisor high with DLAB */
	REG_IIR,  /* FCR when written */
	REG_LCR,
	REG_MCR,
	REG_LSR,
	REG_MSR,
	REG_SCRATCH,
};

#define IER_RX    0x01u
#define IER_THRE  0x02u
#define IER_LINE  0x04u
#define IER_MODEM 0x08u
#define IER_MASK  0x0Fu

#define IIR_MODEM   0x00u
#define IIR_NONE    0x01u
#define IIR_THRE    0x02u
#define IIR_RX      0x04u
#define IIR_LINE    0x06u
#define IIR_TIMEOUT 0x0Cu
#define IIR_FIFOS   0xC0u

#define FCR_ENABLE   0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_DMA      0x08u
#define FCR_TRIGGER  0xC0u
#define FCR_KEPT     (FCR_ENABLE | FCR_DMA | FCR_TRIGGER)

#define LCR_DLAB 0x80u

#define MCR_DTR  0x01u
#define MCR_RTS  0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_MASK 0x1Fu

#define LSR_DATA    0x01u
#define LSR_OVERRUN 0x02u
#define LSR_EMPTY   0x60u /* THRE and TEMT */

#define MSR_CTS        0x10u
#define MSR_DSR        0x20u
#define MSR_RI         0x40u
#define MSR_DCD        0x80u
#define MSR_DELTA_MASK 0x0Fu
#define MSR_DELTA_RI   0x04u

#define FLAG_THRE_PENDING 0x01u

#define DIVISOR_9600 12u /* power-on; what firmware would leave behind */

/* What a guest access asks of the outside, done after the lock is released. */
struct effects {
	uint8_t out_byte;
	bool is_out;
	bool has_room;
};

static uint8_t rx_capacity(const struct hv_uart_state *state)
{
	return (state->fcr & FCR_ENABLE) != 0 ? HV_UART_FIFO_BYTES : 1;
}

static uint8_t rx_trigger(const struct hv_uart_state *state)
{
	static const uint8_t levels[4] = { 1, 4, 8, 14 };

	return (state->fcr & FCR_ENABLE) != 0 ? levels[state->fcr >> 6] : 1;
}

static bool can_receive(const struct hv_uart_state *state)
{
	return (state->mcr & MCR_LOOP) == 0 && state->rx_count < rx_capacity(state);
}

/* The pending interrupt of highest priority. */
static uint8_t interrupt_id(const struct hv_uart_state *state)
{
	if ((state->ier & IER_LINE) != 0 && state->lsr_errors != 0)
		return IIR_LINE;
	if ((state->ier & IER_RX) != 0 && state->rx_count > 0)
		return state->rx_count >= rx_trigger(state) ? IIR_RX : IIR_TIMEOUT;
	if ((state->ier & IER_THRE) != 0 && state->is_thre_pending)
		return IIR_THRE;
	if ((state->ier & IER_MODEM) != 0 && state->msr_delta != 0)
		return IIR_MODEM;
	return IIR_NONE;
}

static bool is_line_high(const struct hv_uart_state *state)
{
	return (state->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2 && interrupt_id(state) != IIR_NONE;
}

/* The modem's lines: a terminal that is always there, or our own outputs in loopback. */
static uint8_t modem_lines(uint8_t mcr)
{
	uint8_t lines = 0;

	if ((mcr & MCR_LOOP) == 0)
		return MSR_CTS | MSR_DSR | MSR_DCD;
	if ((mcr & MCR_RTS) != 0)
		lines |= MSR_CTS;
	if ((mcr & MCR_DTR) != 0)
		lines |= MSR_DSR;
	if ((mcr & MCR_OUT1) != 0)
		lines |= MSR_RI;
	if ((mcr & MCR_OUT2) != 0)
		lines |= MSR_DCD;
	return lines;
}

static void clear_receiver(struct hv_uart_state *state)
{
	state->rx_count = 0;
	memset(state->rx, 0, sizeof(state->rx));
}

static uint8_t take_received(struct hv_uart_state *state)
{
	uint8_t byte = state->rx[0];

	if (state->rx_count == 0)
		return 0;
	memmove(state->rx, state->rx + 1, sizeof(state->rx) - 1);
	state->rx[sizeof(state->rx) - 1] = 0;
	state->rx_count--;
	return byte;
}

/* A byte comes back in loopback.  Full: a FIFO keeps its bytes, the lone register does not. */
static void receive_own(struct hv_uart_state *state, uint8_t byte)
{
	if (state->rx_count < rx_capacity(state)) {
		state->rx[state->rx_count++] = byte;
		return;
	}
	state->lsr_errors |= LSR_OVERRUN;
	if ((state->fcr & FCR_ENABLE) == 0)
		state->rx[0] = byte;
}

static void write_data(struct hv_uart *uart, uint8_t byte, struct effects *effects)
{
	struct hv_uart_state *state = &uart->state;

	if ((state->mcr & MCR_LOOP) != 0) {
		receive_own(state, byte);
	} else {
		effects->is_out = true;
		effects->out_byte = byte;
	}
	if ((state->ier & IER_THRE) == 0)
		return;
	/* Full for an instant, then empty again: on an edge-triggered line that is a new edge,
	 * which a driver that never reads IIR lives on. */
	state->is_thre_pending = false;
	hv_line_drive(&uart->line, is_line_high(state));
	state->is_thre_pending = true;
}

static void write_ier(struct hv_uart_state *state, uint8_t value)
{
	const uint8_t raised = (uint8_t)(value & ~state->ier);

	state->ier = value & IER_MASK;
	if ((raised & IER_THRE) != 0)
		state->is_thre_pending = true; /* the transmitter is empty: tell at once */
	if ((value & IER_THRE) == 0)
		state->is_thre_pending = false;
}

static void write_fcr(struct hv_uart_state *state, uint8_t value)
{
	const bool is_on = (value & FCR_ENABLE) != 0;
	const bool was_on = (state->fcr & FCR_ENABLE) != 0;

	/* Without the enable bit the others have no meaning. */
	if (is_on != was_on || (is_on && (value & FCR_CLEAR_RX) != 0))
		clear_receiver(state);
	state->fcr = is_on ? value & FCR_KEPT : 0;
}

static void write_mcr(struct hv_uart_state *state, uint8_t value)
{
	const uint8_t before = modem_lines(state->mcr);
	const uint8_t after = modem_lines(value & MCR_MASK);
	const uint8_t changed = before ^ after;

	state->mcr = value & MCR_MASK;
	state->msr_delta |= (uint8_t)(changed >> 4) & MSR_DELTA_MASK & ~MSR_DELTA_RI;
	if ((before & MSR_RI) != 0 && (after & MSR_RI) == 0)
		state->msr_delta |= MSR_DELTA_RI; /* RI tells of its trailing edge only */
}

static uint8_t read_locked(struct hv_uart_state *state, uint64_t reg)
{
	const bool is_divisor = (state->lcr & LCR_DLAB) != 0;
	uint8_t value;

	switch (reg) {
	case REG_DATA:
		return is_divisor ? state->divisor_low : take_received(state);
	case REG_IER:
		return is_divisor ? state->divisor_high : state->ier;
	case REG_IIR:
		value = interrupt_id(state);
		if (value == IIR_THRE)
			state->is_thre_pending = false;
		return (state->fcr & FCR_ENABLE) != 0 ? value | IIR_FIFOS : value;
	case REG_LCR:
		return state->lcr;
	case REG_MCR:
		return state->mcr;
	case REG_LSR:
		value = LSR_EMPTY | state->lsr_errors;
		if (state->rx_count > 0)
			value |= LSR_DATA;
		state->lsr_errors = 0;
		return value;
	case REG_MSR:
		value = modem_lines(state->mcr) | state->msr_delta;
		state->msr_delta = 0;
		return value;
	case REG_SCRATCH:
		return state->scratch;
	default:
		return 0xFF;
	}
}

static void write_locked(struct hv_uart *uart, uint64_t reg, uint8_t value, struct effects *effects)
{
	struct hv_uart_state *state = &uart->state;
	const bool is_divisor = (state->lcr & LCR_DLAB) != 0;

	switch (reg) {
	case REG_DATA:
		if (is_divisor)
			state->divisor_low = value;
		else
			write_data(uart, value, effects);
		break;
	case REG_IER:
		if (is_divisor)
			state->divisor_high = value;
		else
			write_ier(state, value);
		break;
	case REG_IIR:
		write_fcr(state, value);
		break;
	case REG_LCR:
		state->lcr = value;
		break;
	case REG_MCR:
		write_mcr(state, value);
		break;
	case REG_SCRATCH:
		state->scratch = value;
		break;
	default:
		break; /* LSR and MSR are read-only */
	}
}

/* After any change, lock held: the line follows the state; tells whether to call for input. */
static bool settle(struct hv_uart *uart)
{
	hv_line_drive(&uart->line, is_line_high(&uart->state));
	if (!uart->is_starved || !can_receive(&uart->state))
		return false;
	uart->is_starved = false;
	return uart->room != NULL;
}

static uint8_t read_byte(struct hv_uart *uart, uint64_t reg)
{
	uint8_t value;
	bool has_room;

	{
		BASE_LOCKED(&uart->lock);
		value = read_locked(&uart->state, reg);
		has_room = settle(uart);
	}
	if (has_room)
		uart->room(uart->room_context);
	return value;
}

static void write_byte(struct hv_uart *uart, uint64_t reg, uint8_t value)
{
	struct effects effects = { 0 };

	{
		BASE_LOCKED(&uart->lock);
		write_locked(uart, reg, value, &effects);
		effects.has_room = settle(uart);
	}
	if (effects.is_out)
		uart->env.ops->console_out(uart->env.context, &effects.out_byte, 1);
	if (effects.has_room)
		uart->room(uart->room_context);
}

/* The chip is 8 bits wide: a wider access is a cycle for each of its bytes, lowest first. */
static uint64_t uart_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < size_bytes; i++)
		value |= (uint64_t)read_byte(device, offset + i) << (8 * i);
	return value;
}

static void uart_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	for (uint32_t i = 0; i < size_bytes; i++)
		write_byte(device, offset + i, (uint8_t)(value >> (8 * i)));
}

static const struct hv_io_ops uart_ops = { .read = uart_read, .write = uart_write };

static struct hv_uart_state power_on_state(void)
{
	return (struct hv_uart_state){ .divisor_low = DIVISOR_9600 };
}

void hv_uart_init(void *device, const struct hv_device_env *env)
{
	struct hv_uart *uart = device;

	(void)pthread_mutex_init(&uart->lock, NULL);
	uart->env = *env;
	uart->line.irq = (struct hv_irq_line){ .set = env->ops->irq,
					       .context = env->context,
					       .gsi = HV_UART_IRQ };
	uart->state = power_on_state();
}

int hv_uart_attach(void *device, struct base_error *err)
{
	struct hv_uart *uart = device;

	const struct hv_io_range range = { .space = HV_IO_PORT,
					   .base = HV_UART_PORT,
					   .length = UART_PORTS,
					   .ops = &uart_ops,
					   .device = uart };

	return hv_iobus_add(uart->env.bus, &range, err);
}

void hv_uart_fini(void *device)
{
	struct hv_uart *uart = device;

	(void)pthread_mutex_destroy(&uart->lock);
}

/* Put the line where the state says, changed or not, and call for input that waits. */
static void start_over(struct hv_uart *uart, const struct hv_uart_state *state)
{
	bool has_room;

	{
		BASE_LOCKED(&uart->lock);
		if (state != NULL)
			uart->state = *state;
		hv_line_force(&uart->line, is_line_high(&uart->state));
		has_room = settle(uart);
	}
	if (has_room)
		uart->room(uart->room_context);
}

void hv_uart_reset(void *device)
{
	const struct hv_uart_state state = power_on_state();

	start_over(device, &state);
}

void hv_uart_loaded(void *device)
{
	start_over(device, NULL);
}

size_t hv_uart_receive(struct hv_uart *uart, const uint8_t *bytes, size_t size_bytes)
{
	struct hv_uart_state *state = &uart->state;
	size_t taken = 0;

	BASE_LOCKED(&uart->lock);
	while (taken < size_bytes && can_receive(state))
		state->rx[state->rx_count++] = bytes[taken++];
	uart->is_starved = taken < size_bytes;
	hv_line_drive(&uart->line, is_line_high(state));
	return taken;
}

void hv_uart_on_room(struct hv_uart *uart, void (*room)(void *context), void *context)
{
	BASE_LOCKED(&uart->lock);
	uart->room = room;
	uart->room_context = context;
}

void hv_uart_save(void *device, struct base_buffer *out)
{
	struct hv_uart *uart = device;
	const struct hv_uart_state *state = &uart->state;

	BASE_LOCKED(&uart->lock);
	base_buffer_u8(out, state->ier);
	base_buffer_u8(out, state->fcr);
	base_buffer_u8(out, state->lcr);
	base_buffer_u8(out, state->mcr);
	base_buffer_u8(out, state->lsr_errors);
	base_buffer_u8(out, state->msr_delta);
	base_buffer_u8(out, state->scratch);
	base_buffer_u8(out, state->divisor_low);
	base_buffer_u8(out, state->divisor_high);
	base_buffer_u8(out, state->is_thre_pending ? FLAG_THRE_PENDING : 0);
	base_buffer_u8(out, state->rx_count);
	base_buffer_u8(out, 0);
	base_buffer_append(out, state->rx, sizeof(state->rx));
}

static int check_state(const struct hv_uart_state *state, struct base_error *err)
{
	const uint8_t fcr_mask = (state->fcr & FCR_ENABLE) != 0 ? FCR_KEPT : 0;

	if ((state->ier & ~IER_MASK) != 0)
		return base_fail(err, -EBADMSG, "IER 0x%02x not in 0..0x0f", state->ier);
	if ((state->fcr & ~fcr_mask) != 0)
		return base_fail(err, -EBADMSG, "FCR 0x%02x cannot be", state->fcr);
	if ((state->mcr & ~MCR_MASK) != 0)
		return base_fail(err, -EBADMSG, "MCR 0x%02x not in 0..0x1f", state->mcr);
	if ((state->lsr_errors & ~LSR_OVERRUN) != 0)
		return base_fail(err, -EBADMSG, "LSR errors 0x%02x, wanted 0 or 0x02",
				 state->lsr_errors);
	if ((state->msr_delta & ~MSR_DELTA_MASK) != 0)
		return base_fail(err, -EBADMSG, "MSR delta 0x%02x not in 0..0x0f",
				 state->msr_delta);
	if (state->is_thre_pending && (state->ier & IER_THRE) == 0)
		return base_fail(err, -EBADMSG, "THRE pending while IER 0x%02x masks it",
				 state->ier);
	if (state->rx_count > rx_capacity(state))
		return base_fail(err, -EBADMSG, "%u bytes received, the FIFO holds %u",
				 state->rx_count, rx_capacity(state));
	if (!base_is_zero(state->rx + state->rx_count, sizeof(state->rx) - state->rx_count))
		return base_fail(err, -EBADMSG, "bytes behind the %u received are not zero",
				 state->rx_count);
	return 0;
}

int hv_uart_load(void *device, struct base_reader *in, struct base_error *err)
{
	struct hv_uart *uart = device;
	struct hv_uart_state state = { 0 };
	uint8_t flags;
	uint8_t reserved;
	int rc;

	if (base_reader_left(in) != UART_PAYLOAD_BYTES)
		return base_fail(err, -EBADMSG, "%zu bytes, wanted %u", base_reader_left(in),
				 UART_PAYLOAD_BYTES);
	state.ier = base_read_u8(in);
	state.fcr = base_read_u8(in);
	state.lcr = base_read_u8(in);
	state.mcr = base_read_u8(in);
	state.lsr_errors = base_read_u8(in);
	state.msr_delta = base_read_u8(in);
	state.scratch = base_read_u8(in);
	state.divisor_low = base_read_u8(in);
	state.divisor_high = base_read_u8(in);
	flags = base_read_u8(in);
	state.is_thre_pending = (flags & FLAG_THRE_PENDING) != 0;
	state.rx_count = base_read_u8(in);
	reserved = base_read_u8(in);
	base_read_bytes(in, state.rx, sizeof(state.rx));
	if ((flags & ~FLAG_THRE_PENDING) != 0 || reserved != 0)
		return base_fail(err, -EBADMSG, "flags 0x%02x, reserved 0x%02x: unknown bits",
				 flags, reserved);
	rc = check_state(&state, err);
	if (rc < 0)
		return rc;

	BASE_LOCKED(&uart->lock);
	uart->state = state;
	return 0;
}
