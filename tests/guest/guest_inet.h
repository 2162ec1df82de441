/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of the internet as a test needs: answers ARP, ICMP echo and UDP echo (port 7), takes
 * what comes to UDP port 9 (discard), and makes ARP requests, announcements and datagrams.
 * Ethernet frames in, frames out; checksums are verified and made in full.  Pure; compiles for
 * the guest and the host.
 */
#ifndef GUEST_INET_H
#define GUEST_INET_H

#include <stdbool.h>
#include <stdint.h>

#define GUEST_FRAME_BYTES_MAX 1514u
#define GUEST_DATAGRAM_MAX    1472u
#define GUEST_PORT_ECHO       7
#define GUEST_PORT_DISCARD    9

struct guest_inet {
	uint8_t mac[6], peer_mac[6];
	bool peer_known;
	uint32_t address, peer;
	uint64_t arp, icmp, udp, sunk, sunk_bytes, bad_sum;
};

/**
 * guest_inet_answer - what a frame asks for.
 * @sums_good: the host vouches for the checksums inside; they may not be filled in.
 * @reply:     room for GUEST_FRAME_BYTES_MAX.
 * Return: bytes of the reply; 0: none.
 */
uint32_t guest_inet_answer(struct guest_inet *inet, const uint8_t *frame, uint32_t bytes,
			   bool sums_good, uint8_t *reply);

/** guest_inet_arp - ask who has @target; our own address: an announcement.  Return: bytes. */
uint32_t guest_inet_arp(const struct guest_inet *inet, uint32_t target, uint8_t *frame);

/** guest_inet_datagram - @payload_bytes to the peer's discard port, @sequence in front. */
uint32_t guest_inet_datagram(const struct guest_inet *inet, uint32_t payload_bytes,
			     uint64_t sequence, uint8_t *frame);

/** guest_inet_large - headers of a TCP packet of @payload_bytes to the peer's discard port, for
 *  the host to cut: the checksum holds the addresses' part.  Return: bytes of them. */
#define GUEST_LARGE_PAYLOAD_MAX 65495u
#define GUEST_TCP_AT            34u /* where the TCP header is */
uint32_t guest_inet_large(const struct guest_inet *inet, uint32_t payload_bytes, uint32_t sequence,
			  uint8_t *frame);

#endif
