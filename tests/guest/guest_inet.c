/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_inet.h.  RFC 768, 791, 792, 826. */
#include "tests/guest/guest_inet.h"

#include "tests/guest/guest_bytes.h"

#define ETHER      14u
#define TYPE_IP    0x0800
#define TYPE_ARP   0x0806
#define ARP_BYTES  28u
#define ARP_ASK    1
#define ARP_TELL   2
#define IP_BYTES   20u
#define ICMP       1
#define TCP        6
#define TCP_BYTES  20u
#define TCP_ACK    0x10
#define UDP        17
#define UDP_BYTES  8u
#define ICMP_ECHO  8
#define FRAME_MIN  60u
#define FRAGMENT   0x3fff /* more fragments, offset */
#define DONT_SPLIT 0x4000
#define TTL        64

/* The sum in network byte order, folded; not complemented. */
static uint32_t sum_of(const uint8_t *from, uint32_t bytes, uint64_t sum)
{
	for (; bytes >= 4; bytes -= 4, from += 4)
		sum += guest_get_be32(from);
	if (bytes >= 2) {
		sum += (uint64_t)guest_get_be16(from);
		bytes -= 2;
		from += 2;
	}
	if (bytes != 0)
		sum += (uint64_t)*from << 8;
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint32_t)sum;
}

static uint64_t pseudo(const uint8_t *ip, uint32_t bytes)
{
	return (uint64_t)guest_get_be32(ip + 12) + guest_get_be32(ip + 16) + ip[9] + bytes;
}

static void put_ether(const struct guest_inet *inet, uint8_t *frame, const uint8_t *to,
		      uint16_t type)
{
	__builtin_memcpy(frame, to, 6);
	__builtin_memcpy(frame + 6, inet->mac, 6);
	guest_put_be16(frame + 12, type);
}

static void put_arp(const struct guest_inet *inet, uint8_t *arp, uint16_t operation)
{
	guest_put_be16(arp, 1);
	guest_put_be16(arp + 2, TYPE_IP);
	arp[4] = 6;
	arp[5] = 4;
	guest_put_be16(arp + 6, operation);
	__builtin_memcpy(arp + 8, inet->mac, 6);
	guest_put_be32(arp + 14, inet->address);
}

static uint32_t padded(uint8_t *frame, uint32_t bytes)
{
	while (bytes < FRAME_MIN)
		frame[bytes++] = 0;
	return bytes;
}

uint32_t guest_inet_arp(const struct guest_inet *inet, uint32_t target, uint8_t *frame)
{
	static const uint8_t everyone[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	put_ether(inet, frame, everyone, TYPE_ARP);
	put_arp(inet, frame + ETHER, ARP_ASK);
	__builtin_memset(frame + ETHER + 18, 0, 6);
	guest_put_be32(frame + ETHER + 24, target);
	return padded(frame, ETHER + ARP_BYTES);
}

static uint32_t answer_arp(struct guest_inet *inet, const uint8_t *arp, uint32_t bytes,
			   uint8_t *reply)
{
	if (bytes < ARP_BYTES || guest_get_be16(arp + 2) != TYPE_IP)
		return 0;
	if (inet->peer != 0 && guest_get_be32(arp + 14) == inet->peer) {
		__builtin_memcpy(inet->peer_mac, arp + 8, 6);
		inet->peer_known = true;
	}
	if (guest_get_be16(arp + 6) != ARP_ASK || guest_get_be32(arp + 24) != inet->address)
		return 0;
	inet->arp++;
	put_ether(inet, reply, arp + 8, TYPE_ARP);
	put_arp(inet, reply + ETHER, ARP_TELL);
	__builtin_memcpy(reply + ETHER + 18, arp + 8, 10);
	return padded(reply, ETHER + ARP_BYTES);
}

static void put_ip(const struct guest_inet *inet, uint8_t *ip, uint8_t protocol, uint32_t bytes)
{
	ip[0] = 0x45;
	ip[1] = 0;
	guest_put_be16(ip + 2, (uint16_t)bytes);
	guest_put_be32(ip + 4, DONT_SPLIT);
	ip[8] = TTL;
	ip[9] = protocol;
	guest_put_be16(ip + 10, 0);
	guest_put_be32(ip + 12, inet->address);
	guest_put_be16(ip + 10, (uint16_t)~sum_of(ip, IP_BYTES, 0));
}

static void put_udp_sum(uint8_t *ip, uint32_t bytes)
{
	uint8_t *udp = ip + IP_BYTES;
	uint16_t sum;

	guest_put_be16(udp + 6, 0);
	sum = (uint16_t)~sum_of(udp, bytes, pseudo(ip, bytes));
	guest_put_be16(udp + 6, sum == 0 ? 0xffff : sum);
}

static uint32_t answer_icmp(struct guest_inet *inet, const uint8_t *icmp, uint32_t bytes,
			    uint8_t *reply)
{
	uint8_t *out = reply + ETHER + IP_BYTES;

	if (bytes < 8 || icmp[0] != ICMP_ECHO)
		return 0;
	if (sum_of(icmp, bytes, 0) != 0xffff) {
		inet->bad_sum++;
		return 0;
	}
	inet->icmp++;
	__builtin_memcpy(out, icmp, bytes);
	guest_put32(out, 0); /* echo reply; the sum comes last */
	guest_put_be16(out + 2, (uint16_t)~sum_of(out, bytes, 0));
	put_ip(inet, reply + ETHER, ICMP, IP_BYTES + bytes);
	return bytes;
}

static uint32_t answer_udp(struct guest_inet *inet, const uint8_t *ip, bool sums_good,
			   uint8_t *reply)
{
	const uint8_t *udp = ip + IP_BYTES;
	uint32_t bytes = guest_get_be16(ip + 2) - IP_BYTES;
	uint8_t *out = reply + ETHER + IP_BYTES;

	if (bytes < UDP_BYTES || guest_get_be16(udp + 4) != bytes)
		return 0;
	if (!sums_good && guest_get16(udp + 6) != 0 &&
	    sum_of(udp, bytes, pseudo(ip, bytes)) != 0xffff) {
		inet->bad_sum++;
		return 0;
	}
	if (guest_get_be16(udp + 2) == GUEST_PORT_DISCARD) {
		inet->sunk++;
		inet->sunk_bytes += bytes - UDP_BYTES;
		return 0;
	}
	if (guest_get_be16(udp + 2) != GUEST_PORT_ECHO)
		return 0;
	inet->udp++;
	__builtin_memcpy(out, udp, bytes);
	guest_put16(out, guest_get16(udp + 2));
	guest_put16(out + 2, guest_get16(udp));
	put_ip(inet, reply + ETHER, UDP, IP_BYTES + bytes);
	put_udp_sum(reply + ETHER, bytes);
	return bytes;
}

static uint32_t answer_ip(struct guest_inet *inet, const uint8_t *frame, uint32_t bytes,
			  bool sums_good, uint8_t *reply)
{
	const uint8_t *ip = frame + ETHER;
	uint32_t length, answer = 0;

	if (bytes < ETHER + IP_BYTES || ip[0] != 0x45)
		return 0;
	length = guest_get_be16(ip + 2);
	if (length < IP_BYTES || length > bytes - ETHER || ETHER + length > GUEST_FRAME_BYTES_MAX ||
	    (guest_get_be16(ip + 6) & FRAGMENT) != 0 || guest_get_be32(ip + 16) != inet->address)
		return 0;
	if (sum_of(ip, IP_BYTES, 0) != 0xffff) {
		inet->bad_sum++;
		return 0;
	}
	/* before the sums, which are over it */
	guest_put_be32(reply + ETHER + 16, guest_get_be32(ip + 12));
	if (ip[9] == ICMP)
		answer = answer_icmp(inet, ip + IP_BYTES, length - IP_BYTES, reply);
	else if (ip[9] == UDP)
		answer = answer_udp(inet, ip, sums_good, reply);
	if (answer == 0)
		return 0;
	put_ether(inet, reply, frame + 6, TYPE_IP);
	return padded(reply, ETHER + IP_BYTES + answer);
}

uint32_t guest_inet_answer(struct guest_inet *inet, const uint8_t *frame, uint32_t bytes,
			   bool sums_good, uint8_t *reply)
{
	if (bytes < ETHER)
		return 0;
	if (guest_get_be16(frame + 12) == TYPE_ARP)
		return answer_arp(inet, frame + ETHER, bytes - ETHER, reply);
	if (guest_get_be16(frame + 12) == TYPE_IP)
		return answer_ip(inet, frame, bytes, sums_good, reply);
	return 0;
}

uint32_t guest_inet_datagram(const struct guest_inet *inet, uint32_t payload_bytes,
			     uint64_t sequence, uint8_t *frame)
{
	uint8_t *ip = frame + ETHER, *udp = ip + IP_BYTES;
	uint32_t bytes = UDP_BYTES + payload_bytes;

	put_ether(inet, frame, inet->peer_mac, TYPE_IP);
	guest_put_be32(ip + 16, inet->peer);
	guest_put_be16(udp, GUEST_PORT_DISCARD);
	guest_put_be16(udp + 2, GUEST_PORT_DISCARD);
	guest_put_be16(udp + 4, (uint16_t)bytes);
	__builtin_memset(udp + UDP_BYTES, (int)(sequence & 0xff), payload_bytes);
	if (payload_bytes >= 8)
		guest_put_be64(udp + UDP_BYTES, sequence);
	put_ip(inet, ip, UDP, IP_BYTES + bytes);
	put_udp_sum(ip, bytes);
	return padded(frame, ETHER + IP_BYTES + bytes);
}

uint32_t guest_inet_large(const struct guest_inet *inet, uint32_t payload_bytes, uint32_t sequence,
			  uint8_t *frame)
{
	uint8_t *ip = frame + ETHER, *tcp = frame + GUEST_TCP_AT;

	put_ether(inet, frame, inet->peer_mac, TYPE_IP);
	guest_put_be32(ip + 16, inet->peer);
	put_ip(inet, ip, TCP, IP_BYTES + TCP_BYTES + payload_bytes);
	__builtin_memset(tcp, 0, TCP_BYTES);
	guest_put_be16(tcp, GUEST_PORT_DISCARD);
	guest_put_be16(tcp + 2, GUEST_PORT_DISCARD);
	guest_put_be32(tcp + 4, sequence);
	tcp[12] = TCP_BYTES / 4 << 4;
	tcp[13] = TCP_ACK;
	guest_put_be16(tcp + 14, 0xffff);
	guest_put_be16(tcp + 16, (uint16_t)sum_of(ip + 12, 8, TCP)); /* not its length */
	return ETHER + IP_BYTES + TCP_BYTES;
}
