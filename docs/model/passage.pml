/* Messages of the inbox to two objects, and the checkpoint from which the next owner goes on (engine/passage.go, inbox.go).
 * Object and checkpoint are in one journal: of what is in flight some beginning is stored when an epoch ends.
 *
 * C1 passed     a stored checkpoint passes no message that is not answered for good, unless it holds it
 * C2 purged     nothing is purged that is not answered for good
 * C3 in order   an object answers each of its messages, in the order of the inbox, once
 */
#ifndef M
#define M 3              /* messages */
#endif
#ifndef P
#define P 3              /* records in flight */
#endif
#ifndef ENDS
#define ENDS 1           /* epochs that end */
#endif
#ifndef FAILS
#define FAILS 2          /* tries that fail */
#endif
#ifndef LAGS
#define LAGS 1           /* reads that a replica answers which is behind */
#endif
hidden byte C1, C2, C3;  /* always 0: they name what an assertion is about */
bit obj[M + 1];           /* the object of a message */
byte stored;             /* messages in the inbox */
bit purged[M + 1];
byte answered[2];        /* the last message that an object answered: in the journal */
typedef Cp { byte cursor, first[2], last[2] };
Cp cp, durable;          /* the last checkpoint in the journal, and the one that purging goes by */
/* the owner: answered in memory; taken; passed; per object the first held message (0: none), the last taken, the last passed */
byte mem[2], position, cursor, first[2], seen[2], passed[2];
byte out[2];             /* messages that were given and are not told: of an object, one at a time */
bit open[M + 1];         /* taken, not done */
/* in flight: a commit that answers msg, or a checkpoint */
typedef Rec { byte msg; Cp c };
Rec q[P]; byte nq;
byte ends, fails, lags;
byte i_;

inline copy(a, b) { a.cursor = b.cursor; a.first[0] = b.first[0]; a.first[1] = b.first[1]; a.last[0] = b.last[0]; a.last[1] = b.last[1] }
inline clear(a) { a.cursor = 0; a.first[0] = 0; a.first[1] = 0; a.last[0] = 0; a.last[1] = 0 }
inline advance() {
	do
	:: cursor < position && !open[cursor + 1] -> cursor++;
		if :: first[obj[cursor]] -> passed[obj[cursor]] = cursor :: else fi
	:: else -> break
	od
}
inline answer(letter) {     /* a turn: its commit is on the way. What the object answered before is passed over */
	if
	:: mem[obj[letter]] < letter ->
		i_ = 1;
		do
		:: i_ < letter -> assert(C3 || obj[i_] != obj[letter] || mem[obj[letter]] >= i_); i_++
		:: else -> break
		od; i_ = 0;
		mem[obj[letter]] = letter; q[nq].msg = letter; nq++
	:: else
	fi
}
inline kept() {          /* the first in flight is in the journal */
	if
	:: q[0].msg -> answered[obj[q[0].msg]] = q[0].msg
	:: else ->
		copy(cp, q[0].c);
		i_ = 1;
		do
		:: i_ <= cp.cursor -> assert(C1 || answered[obj[i_]] >= i_ || (cp.first[obj[i_]] && cp.first[obj[i_]] <= i_ && cp.last[obj[i_]] >= i_)); i_++
		:: else -> break
		od; i_ = 0
	fi
}
inline pop() {
	i_ = 1;
	do
	:: i_ < P -> q[i_ - 1].msg = q[i_].msg; copy(q[i_ - 1].c, q[i_].c); i_++
	:: else -> break
	od;
	q[P - 1].msg = 0; clear(q[P - 1].c); nq--; i_ = 0
}
active proctype world() {
	do
	:: atomic { stored < M -> stored++; if :: obj[stored] = 0 :: obj[stored] = 1 fi }
	:: atomic { ends < ENDS -> ends++;                          /* another owner goes on from the last checkpoint */
		do
		:: nq -> kept(); pop()
		:: break
		od;
		do :: nq -> pop() :: else -> break od;
		mem[0] = answered[0]; mem[1] = answered[1]; position = cp.cursor; cursor = cp.cursor; clear(durable); out[0] = 0; out[1] = 0;
		first[0] = cp.first[0]; first[1] = cp.first[1]; seen[0] = cp.last[0]; seen[1] = cp.last[1]; passed[0] = cp.last[0]; passed[1] = cp.last[1];
		i_ = 1; do :: i_ <= M -> open[i_] = 0; i_++ :: else -> break od; i_ = 0 }
	od
}
active proctype owner() {
	byte x, o;
	do
	/* ---- take the next of the stream: to its object, or behind what that holds ---- */
	:: atomic { position < stored && (first[obj[position + 1]] || (!out[obj[position + 1]] && nq < P)) ->
		position++; o = obj[position];
		if
		:: first[o] -> seen[o] = position
		:: else ->
			open[position] = 1;
			if
			:: answer(position); out[o] = position
			:: fails < FAILS && mem[o] < position -> fails++;                /* it cannot be answered now: its object holds */
				open[position] = 0; first[o] = position; seen[o] = position
			fi
		fi;
#ifdef TAKEN_IS_PASSED
		cursor = position;
#endif
		advance(); o = 0 }
	/* ---- told: its commit is in the journal. (Of what was answered before, too: what is in flight is behind.) ---- */
	:: atomic { out[0] && answered[0] >= out[0] -> open[out[0]] = 0; if :: first[0] -> first[0] = out[0] + 1 :: else fi; out[0] = 0; advance() }
	:: atomic { out[1] && answered[1] >= out[1] -> open[out[1]] = 0; if :: first[1] -> first[1] = out[1] + 1 :: else fi; out[1] = 0; advance() }
	/* ---- try a held object: read its messages from the first on, until one fails ---- */
	:: atomic { (first[0] && !out[0] || first[1] && !out[1]) && nq < P ->
		if :: first[0] && !out[0] -> o = 0 :: first[1] && !out[1] -> o = 1 fi;
		x = first[o];
		do                                                        /* the next of its own at or behind the first */
		:: x <= stored && (obj[x] != o || purged[x]) -> x++
		:: else -> break
		od;
		if
		:: x <= stored && x <= seen[o] -> answer(x); out[o] = x       /* told before the next is given */
		:: x > seen[o] -> first[o] = 0; seen[o] = 0; passed[o] = 0   /* the last one was among them */
#ifdef REPLICA_TRUSTED
		:: lags < LAGS -> lags++; first[o] = 0; seen[o] = 0; passed[o] = 0
#endif
		:: skip
		fi; x = 0; o = 0 }
	/* ---- the journal acknowledges ---- */
	:: atomic { nq -> kept(); if :: q[0].msg == 0 -> copy(durable, q[0].c) :: else fi; pop() }
	/* ---- checkpoint, behind what is in flight ---- */
	:: atomic { nq < P && (cursor != cp.cursor || first[0] != cp.first[0] || first[1] != cp.first[1]) ->
		q[nq].c.cursor = cursor; o = 0;
		do
		:: o < 2 ->
#ifndef HELD_FORGOTTEN
			if :: first[o] && first[o] <= cursor -> q[nq].c.first[o] = first[o]; q[nq].c.last[o] = passed[o] :: else fi;
#endif
			o++
		:: else -> break
		od; o = 0; nq++ }
	/* ---- purge ---- */
	:: atomic { durable.cursor > 1 ->
		x = 1;
		do
#ifdef PURGE_BY_MEMORY
		:: x < cursor ->
#else
		:: x < durable.cursor ->
#endif
			if
#ifndef PURGE_HELD
			:: durable.first[obj[x]] && x >= durable.first[obj[x]]
#endif
			:: else -> assert(C2 || answered[obj[x]] >= x); purged[x] = 1
			fi; x++
		:: else -> break
		od; x = 0 }
	od
}
