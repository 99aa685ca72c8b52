/* Ownership of ONE partition: its stream, its epochs, the leases of N workers (engine/session.go, lease.go, peers.go).
 * Every atomic step is one event; a worker may pause between any two events, so a pause needs no step.
 * A message that is never delivered is a lost message; an answer that never arrives is a lost answer.
 *
 * I1 fence       a stored record belongs to the last epoch before it, which is not released
 * I2 kept        whoever begins an epoch has every acknowledged write, at its version
 * I3 one order   no version is acknowledged for two writes
 * I4 fresh       a read is not older than any write acknowledged, or any read answered, before it
 * I5 no gaps     what was acknowledged, or read, is a counted record (epoch, first, prev)
 * I6 not stuck   (-DLIVE) faults are finite; every run ends with an owner that may answer
 *
 * Time. A lease's term is not counted. Trust may end at any moment. When a taker's wait is over, every
 * trust that rests on the revision it saw, or on an older one, has ended: that is what correct clocks give.
 * A broken clock is TAKER_NO_WAIT.
 */
#include "ownership.h"
hidden byte I1, I2, I3, I4, I5, I6;  /* always 0: they name what an assertion is about */
/* the stream: its last sequence, last epoch (a token), heir + 1 if that is released, counted versions */
byte last, ep, rel, cv;
byte hist[V + 2];        /* id of the write that is version v */
/* an epoch batch, and with it an epoch: by token. rel: its release is under way, to heir + 1 */
byte nt; typedef Epoch { byte own, inc, exp, st, base, ver, rel; byte rec[R] };
Epoch b[T + 1];
/* leases: the bucket's view. Incarnation and revision of worker w's key; incarnation 0: no key. lcl: it says closed */
byte linc[N], lrev[N], nrev[N]; bit lcl[N];
/* workers. cut: the server has ended its connection and it does not know; gone: the incarnation that a probe did not find */
typedef Worker { byte phase, tok, sent, ok, inc, trev, ans; bit trust, cut; byte obs, obsOf, gone };
Worker k[N];
/* ghosts and budgets */
byte gver, gid[V + 2], renewals, crashes, foreign, nw, lapses, cuts, deaths, stops;
byte i_, v_, e_; bit x_;

#define ID(e, n) ((e) * R + (n) + 1)
#define X(e) b[e].own
#define AT (ep * 2 + (rel > 0))   /* the last message on the epoch subject: it, or its release */
#ifdef RELEASE_TO_NAMED
#define RELEASED(w) (rel == w + 1)
#else
#define RELEASED(w) rel
#endif
/* whether a lease key proves that an incarnation is closed */
#define PROVES(x, n) (linc[x] > n || (linc[x] == n && lcl[x]))
/* who may follow epoch ep: rules (a), (b), (c) */
#define LAWFUL(w) (ep == 0 || (X(ep) == w && b[ep].inc == k[w].inc) || PROVES(X(ep), b[ep].inc) || RELEASED(w))

#include "tidy.h"
inline over(w) {         /* the epoch is over for w: from the first not stored, all is unknown */
	k[w].phase = IDLE; k[w].sent = 0; k[w].ok = 0; k[w].tok = 0; tidy()
}
inline ended(w) {        /* the session is over, and its incarnation with it */
	k[w].inc = 0;
#ifdef READ_ANY_INCARNATION
	skip
#elif defined LEASE_NOT_RECHECKED
	if :: k[w].phase == ACTIVE -> over(w) :: else fi          /* what the batch under way comes to is looked at later */
#else
	over(w)
#endif
}
inline void(w) { k[w].trust = 0; k[w].trev = 0; k[w].ans = 0 }
inline close(x) { lcl[x] = 1; lrev[x] = 0 }
/* what w holds in memory at version v: replayed, then its own */
#define MEM(e, n) ((n) <= b[e].ver -> hist[n] : ID(e, (n) - b[e].ver - 1))
inline fresh(tk, upto) {
	assert(I4 || upto >= gver);
	v_ = 1;
	do
	:: v_ <= gver -> assert(I4 || gid[v_] == 0 || gid[v_] == MEM(tk, v_)); v_++
	:: else -> break
	od; v_ = 0
}
inline ack(tk, ix) {     /* the output gate opens for record i of epoch t */
	v_ = b[tk].ver + ix + 1;
	assert(I3 || gid[v_] == 0 || gid[v_] == ID(tk, ix));
	gid[v_] = ID(tk, ix);
	if :: v_ > gver -> gver = v_ :: else fi;
	v_ = 0
}

#define AWAITED(n) (b[k[w].tok].rec[n] == OKAY || b[k[w].tok].rec[n] == NO)
proctype worker(byte w) {
	byte x;
	do
	/* ---- lease ---- */
	:: atomic { ALIVE(w) && k[w].inc == 0 -> close(w) }          /* of a former life: the folder's lock proves that it is gone */
	:: atomic { !ALIVE(w) && nrev[w] < INCS && !k[w].ans && k[w].inc == 0 ->  /* create: a new incarnation */
		nrev[w]++; linc[w] = nrev[w]; lcl[w] = 0; lrev[w] = nrev[w] * 4; k[w].inc = linc[w]; k[w].ans = lrev[w] }
	:: atomic { k[w].inc && linc[w] == k[w].inc && !lcl[w] && !k[w].ans && RENEW(w) ->  /* renew by compare-and-set */
		renewals++; lrev[w]++; k[w].ans = lrev[w] }
	:: atomic { k[w].ans -> k[w].trust = 1; k[w].trev = k[w].ans; k[w].ans = 0 }   /* the answer, in time */
	:: atomic { k[w].trust && lapses < LAPSES -> k[w].trust = 0; k[w].trev = 0; LAPSE }  /* trust ends by itself */
	:: atomic { k[w].inc && (linc[w] != k[w].inc || lcl[w]) && !k[w].ans && !k[w].trust ->  /* renewal refused: the session is over */
		ended(w) }
	:: atomic { k[w].cut == 0 && cuts < CUTS -> cuts++; k[w].cut = 1 }
	:: atomic { k[w].cut ->                                      /* it notices, and connects anew under a new incarnation */
		k[w].cut = 0;
#ifndef RECONNECT_KEEPS_TRUST
		void(w); ended(w)
#endif
	   }
#if STOPS
	:: atomic { stops < STOPS && k[w].inc && linc[w] == k[w].inc && !lcl[w] && !k[w].ans &&  /* a clean stop: close the own lease */
#ifndef CLOSE_WHILE_SERVING
		k[w].phase == IDLE &&
#endif
		true -> stops++; close(w);
#ifndef CLOSE_WHILE_SERVING
		void(w); k[w].inc = 0
#endif
	   }
#endif
	/* ---- take over from the dead: see a revision, wait, close by compare-and-set ---- */
	:: atomic { ep && lrev[X(ep)] && X(ep) != w && k[w].inc && (k[w].obs != lrev[X(ep)] || k[w].obsOf != X(ep)) ->
	         k[w].obs = lrev[X(ep)]; k[w].obsOf = X(ep) }
	:: atomic { k[w].obs && SLOW(k[w].obsOf) ->
		x = k[w].obsOf;
#ifndef TAKER_NO_WAIT
		if :: k[x].trust && k[x].trev <= k[w].obs -> k[x].trust = 0; k[x].trev = 0 :: else fi;
#ifndef LEASE_FROM_ANSWER
		if :: k[x].ans && k[x].ans <= k[w].obs -> k[x].ans = 0 :: else fi;
#endif
#endif
		if
#ifdef CLOSE_NO_CAS
		:: ALIVE(x) -> close(x)
#else
		:: lrev[x] == k[w].obs -> close(x)
#endif
		:: else
		fi;
#ifdef LIVE
		if :: k[x].inc && !ALIVE(x) -> LAPSE :: else fi;
#endif
		k[w].obs = 0; k[w].obsOf = 0; x = 0 }
#if CUTS                 /* probes, of two workers: "no responders" is what a server says of a connection that it has ended */
	:: atomic { k[w].inc && !k[w].cut && ALIVE(1 - w) && k[w].gone != linc[1 - w] &&
#ifndef PROBE_NEVER_MET
		k[1 - w].cut &&
#endif
		true -> k[w].gone = linc[1 - w] }
	:: atomic { k[w].gone ->                                     /* the key is read again: only that life is closed, without a wait */
		if :: ALIVE(1 - w) && linc[1 - w] == k[w].gone -> close(1 - w) :: else fi; k[w].gone = 0 }
#endif
	/* ---- begin an epoch ---- */
	:: atomic { k[w].phase == IDLE && k[w].trust && nt < T && MAY(w) &&
#ifdef TAKE_WITHOUT_RELEASE
		true
#else
		LAWFUL(w)
#endif
		-> nt++; b[nt].own = w; b[nt].inc = k[w].inc; b[nt].exp = AT; b[nt].st = FLY;
#ifdef REPLAY_BEFORE_EPOCH_ACK
		b[nt].ver = cv;
#endif
		k[w].tok = nt; k[w].phase = SENT }
	:: atomic { k[w].phase == SENT && b[k[w].tok].st == OKAY ->
		b[k[w].tok].st = 0;
		if
#ifndef LEASE_NOT_RECHECKED
		:: !(k[w].trust && k[w].inc == b[k[w].tok].inc) -> over(w)
		:: else ->
#else
		:: true ->
#endif
			v_ = b[k[w].tok].ver;
			assert(I2 || ep != k[w].tok || (v_ >= gver && (gid[1] == 0 || gid[1] == hist[1]) && (gid[2] == 0 || gid[2] == hist[2])));
			v_ = 0; k[w].phase = ACTIVE
		fi }
	:: atomic { k[w].phase == SENT && b[k[w].tok].st == NO -> over(w) }
	:: atomic { k[w].phase == SENT && b[k[w].tok].st != NO && lapses < LAPSES -> over(w); LAPSE }  /* gave up: a further compare-and-set decides */
	/* ---- serve ---- */
#ifndef LIVE
	:: atomic { k[w].phase == ACTIVE && nw < V && k[w].sent < R && k[w].sent - k[w].ok < W ->
		nw++; b[k[w].tok].rec[k[w].sent] = FLY;
#ifdef GATE_BEFORE_ACK
		ack(k[w].tok, k[w].sent);
#endif
		k[w].sent++ }
#endif
	:: atomic { k[w].phase == ACTIVE && (AWAITED(0) || AWAITED(1) || AWAITED(2)) ->   /* an answer arrives, in any order */
		if
		:: AWAITED(0) -> x = 0
		:: AWAITED(1) -> x = 1
		:: AWAITED(2) -> x = 2
		fi;
		b[k[w].tok].rec[x] = b[k[w].tok].rec[x] + 2;
#ifdef ANSWERS_BY_ARRIVAL
		if :: b[k[w].tok].rec[x] == KOK -> ack(k[w].tok, x); k[w].ok++ :: else -> over(w) fi;
#else
		do                                                       /* they count in order of position */
		:: k[w].ok < k[w].sent && b[k[w].tok].rec[k[w].ok] == KOK -> ack(k[w].tok, k[w].ok); k[w].ok++
		:: else -> break
		od;
		if :: k[w].ok < k[w].sent && b[k[w].tok].rec[k[w].ok] == KNO -> over(w) :: else fi;
#endif
		x = 0 }
	:: atomic { k[w].phase == ACTIVE && lapses < LAPSES -> over(w); LAPSE }   /* an answer is given up, or a newer epoch seen */
#ifndef LIVE
	:: atomic { k[w].phase >= ACTIVE && k[w].sent == k[w].ok &&
#ifndef PROBE_OTHER_CONNECTION
		!k[w].cut &&
#endif
#ifndef READ_WITHOUT_LEASE
		k[w].trust &&
#endif
		b[k[w].tok].ver + k[w].ok > 0 ->                         /* a read: waits for the gate, needs the lease */
		x = b[k[w].tok].ver + k[w].ok;
		fresh(k[w].tok, x);
		assert(I5 || (x <= cv && hist[x] == MEM(k[w].tok, x)));
		gver = x; gid[x] = hist[x]; x = 0 }
#endif
	/* ---- leave: a release has no fillers, and is sent when nothing is in flight; from then on nothing is answered ---- */
	:: atomic { k[w].phase == ACTIVE &&
#ifndef RELEASE_IN_FLIGHT
		k[w].sent == k[w].ok &&
#endif
		HANDOVER(w) ->
		b[k[w].tok].rel = HEIR(w) + 1;
#ifndef RELEASE_KEEPS_READING
		over(w)
#else
		k[w].phase = LEAVING
#endif
	   }
	:: atomic { crashes < CRASHES -> crashes++; over(w); void(w); k[w].obs = 0; k[w].obsOf = 0; k[w].gone = 0; k[w].inc = 0; k[w].cut = 0 }
	:: atomic { deaths < DEATHS -> deaths++; over(w); void(w); k[w].inc = 0; k[w].obs = 0; close(w);
		break }                                                  /* for good; somebody has waited and closed its lease */
	od
}
inline deliver(e) {
	if
	:: b[e].st == FLY ->                                      /* the atomic batch: epoch record and fillers */
#ifdef EPOCH_NO_CAS
		if :: true ->
#else
		if :: b[e].exp == AT ->
#endif
			ep = e; rel = 0; last = last + 1 + FILL; b[e].base = last; b[e].st = OKAY;
#ifndef REPLAY_BEFORE_EPOCH_ACK
			b[e].ver = cv
#endif
		:: else -> b[e].st = NO
		fi
	:: b[e].rel ->
#ifdef RELEASE_NO_CAS
		rel = b[e].rel; last++;
#else
		if :: AT == e * 2 -> rel = b[e].rel; last++ :: else fi;   /* it expects its own epoch record to be the last on the subject */
#endif
		b[e].rel = 0
	:: b[e].rec[0] == FLY -> i = 0; append(e)
	:: b[e].rec[1] == FLY -> i = 1; append(e)
	:: b[e].rec[2] == FLY -> i = 2; append(e)
	fi;
	i = 0; tidy()
}
inline append(e) {       /* the server compares one integer */
	if
	:: last == b[e].base + i ->
		last++; b[e].rec[i] = OKAY;
		assert(I1 || (ep == e && rel == 0));
		if
		:: ep == e && cv == b[e].ver + i -> cv++; hist[cv] = ID(e, i)   /* it counts */
		:: else
		fi
	:: else -> b[e].rec[i] = NO
	fi
}
proctype server() {      /* delivers what flies, in any order, as late as it likes */
	byte i;
	do
	:: atomic { nt > 0 && FLIES(1) -> deliver(1) }
	:: atomic { nt > 1 && FLIES(2) -> deliver(2) }
	:: atomic { nt > 2 && FLIES(3) -> deliver(3) }
#if T > 3
	:: atomic { nt > 3 && FLIES(4) -> deliver(4) } :: atomic { nt > 4 && FLIES(5) -> deliver(5) }
	:: atomic { nt > 5 && FLIES(6) -> deliver(6) } :: atomic { nt > 6 && FLIES(7) -> deliver(7) }
	:: atomic { nt > 7 && FLIES(8) -> deliver(8) } :: atomic { nt > 8 && FLIES(9) -> deliver(9) }
#endif
	:: atomic { foreign < FOREIGN && ep -> foreign++; last++; tidy() }
	od
}
#ifdef LIVE
#define SERVES(w) (k[w].phase == ACTIVE && k[w].trust && k[w].tok == ep)
proctype goal() { timeout -> assert(I6 || nt == T || SERVES(0) || SERVES(1) || SERVES(N - 1)) }   /* while the run has epochs left */
#endif
init { atomic {          /* worker 0 owns the partition */
	byte w = 0;
	nt = 1; ep = 1; last = 1 + FILL; b[1].base = last; b[1].inc = 1;
	nrev[0] = 1; linc[0] = 1; lrev[0] = 4; k[0].inc = 1; k[0].trust = 1; k[0].trev = 4; k[0].tok = 1; k[0].phase = ACTIVE;
	do :: w < N -> run worker(w); w++ :: else -> break od;
	run server();
#ifdef LIVE
	run goal()
#endif
} }
