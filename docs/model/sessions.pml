/* Requests of one client at one object: numbers, marks, repeats, over epochs (engine/once.go). With -DINBOX they are messages: one
 * sequence, in which a publisher's retry is another message, answered in order; else calls, of which copies come in any order, for ever.
 *
 * O1 once      no number is applied twice
 * O2 told      what the client was told of is in the journal
 * O3 not lost  what is refused as below the mark was applied, or its client gave it up
 */
#ifndef NR
#define NR 3             /* numbers */
#endif
#ifndef P
#define P 2              /* commits in flight */
#endif
#ifndef ENDS
#define ENDS 2           /* epochs that end: what is in flight is stored up to somewhere */
#endif
#ifndef TM
#define TM 1             /* the latest time; clocks say anything up to it */
#endif
#ifndef OTHERS
#define OTHERS 0         /* requests of others, which move the object's time on */
#endif
#ifndef L
#define L 4              /* messages in the inbox */
#endif
hidden byte O1, O2, O3;  /* always 0: they name what an assertion is about */
#define BIT(n) (1 << (n))
/* what an object keeps: the last message answered, mark, answers kept, its time, the client's latest deadline + 1 (0: not known); and
 * a ghost, all that it ever applied */
typedef St { byte in, m, ans, at, dl, all };
St mem;                  /* what the activation has */
St jr;                   /* what a replay of the journal makes */
St sr;                   /* what the store's state and the records behind it make */
typedef Co { byte in, n, m, at, dl };
Co q[P]; byte nq;        /* commits in flight, in order */
byte ends, others, next = 1;     /* the next new number */
byte dead[NR + 1];       /* deadline of a number */
byte done, gone;         /* the client: answered or given up; given up */
#ifdef INBOX
typedef Le { byte n, m, at };
Le le[L + 1]; byte nl;
#else
byte cp[NR + 1];         /* copies of a number on the network: by mark */
#endif
bit known_; byte n_, m_, t_, d_, i_;

inline mark() {          /* all below are answered or given up */
	m_ = 1;
	do :: m_ < next && (done & BIT(m_)) -> m_++ :: else -> break od
}
inline fold(s) {         /* commit q[0] */
	if :: q[0].in -> s.in = q[0].in :: else fi;
	s.at = q[0].at;
	if
	:: q[0].n ->
		if :: q[0].m > s.m -> s.m = q[0].m :: else fi;
		if :: q[0].n >= s.m -> s.ans = s.ans | BIT(q[0].n) :: else fi;
		s.ans = s.ans & ~(BIT(s.m) - 1);
		if :: q[0].dl + 1 > s.dl -> s.dl = q[0].dl + 1 :: else fi;
		s.all = s.all | BIT(q[0].n)
	:: else
	fi
}
inline forget(s, now) {  /* a client whose latest deadline has passed */
	if :: s.dl && s.dl - 1 < now -> s.m = 0; s.ans = 0; s.dl = 0 :: else fi
}
inline copy(a, b) { a.in = b.in; a.m = b.m; a.ans = b.ans; a.at = b.at; a.dl = b.dl; a.all = b.all }
inline pop() {
	i_ = 1;
	do
	:: i_ < P -> q[i_ - 1].in = q[i_].in; q[i_ - 1].n = q[i_].n; q[i_ - 1].m = q[i_].m; q[i_ - 1].at = q[i_].at; q[i_ - 1].dl = q[i_].dl; i_++
	:: else -> break
	od;
	q[P - 1].in = 0; q[P - 1].n = 0; q[P - 1].m = 0; q[P - 1].at = 0; q[P - 1].dl = 0; nq--; i_ = 0
}
inline stored() {        /* the first in flight is in the journal */
	assert(O1 || q[0].n == 0 || !(jr.all & BIT(q[0].n)));
	fold(jr); fold(sr)
}
/* a turn for number n_ with mark m_, at the clock's time t_ */
inline tell(num) {
	assert(O2 || (jr.all & BIT(num)));
#ifndef INBOX
	done = done | BIT(num)
#endif
}
inline answer(pos, num) {  /* a message is answered by a commit whatever comes of it, a call only if it is applied */
	if
	:: num || pos ->
		q[nq].in = pos; q[nq].n = num; q[nq].m = (num -> m_ : 0); q[nq].at = t_; q[nq].dl = (num -> d_ : 0);
		nq++;
		mem.at = t_;
		if :: pos -> mem.in = pos :: else fi;
		if
		:: num ->
			if :: m_ > mem.m -> mem.m = m_ :: else fi;
			if :: num >= mem.m -> mem.ans = mem.ans | BIT(num) :: else fi;
			mem.ans = mem.ans & ~(BIT(mem.m) - 1);
			if :: d_ + 1 > mem.dl -> mem.dl = d_ + 1 :: else fi;
			mem.all = mem.all | BIT(num)
		:: else
		fi
	:: else
	fi
}
inline turn(pos) {
	if :: t_ < mem.at -> t_ = mem.at :: else fi;
#ifdef DEADLINE_FROM_RECEIPT
	d_ = (t_ < TM -> t_ + 1 : TM);
#else
	d_ = dead[n_];
#endif
	known_ = !(mem.dl && mem.dl - 1 < mem.at);                /* forgotten by the time of the last commit, not by the clock */
	if
	:: d_ < t_ -> answer(pos, 0)                              /* expired: it is not run */
#ifndef BELOW_MARK_RUNS
	:: d_ >= t_ && known_ && n_ < mem.m ->
		assert(O3 || (mem.all & BIT(n_)) || (gone & BIT(n_)));
		answer(pos, 0)
#endif
	:: d_ >= t_ && known_ && n_ >= mem.m && (mem.ans & BIT(n_)) ->      /* a repeat: it waits for the gate */
#ifndef REPEAT_BEFORE_GATE
		if :: jr.all & BIT(n_) -> tell(n_) :: else fi;
#else
		tell(n_);
#endif
		answer(pos, 0)
	:: else -> answer(pos, n_)
	fi; n_ = 0; m_ = 0; t_ = 0; d_ = 0; known_ = 0
}
inline post() {          /* the inbox stores it; its answer comes, or gets lost */
	nl++; le[nl].n = n; le[nl].m = m_;
	if :: le[nl].at = 0 :: le[nl].at = 1 :: le[nl].at = TM fi;
	if :: done = done | BIT(n) :: skip fi;
	n = 0; m_ = 0
}
active proctype client() {
	byte n;
	do
#ifdef INBOX
	:: atomic { nl < L && others < OTHERS -> others++; nl++;                              /* of another publisher, bare */
		if :: le[nl].at = 0 :: le[nl].at = 1 :: le[nl].at = TM fi }
	:: atomic { nl < L && next <= NR -> mark(); dead[next] = 0;                            /* a new one, or a retry */
		if :: dead[next] = TM :: dead[next] = 1 :: dead[next] = 0 fi; n = next; next++; post() }
	:: atomic { nl < L && next > 1 -> n = 1;
		do :: n < next - 1 -> n++ :: break od;
		if :: !(done & BIT(n)) -> mark(); post() :: else fi; n = 0; m_ = 0 }
#else
	:: atomic { next <= NR -> mark();
		if :: dead[next] = TM :: dead[next] = 1 :: dead[next] = 0 fi; cp[next] = BIT(m_); next++; m_ = 0 }
	:: atomic { next > 1 -> n = 1;                                                         /* again, with the mark of now */
		do :: n < next - 1 -> n++ :: break od;
		if :: !(done & BIT(n)) -> mark(); cp[n] = cp[n] | BIT(m_) :: else fi; n = 0; m_ = 0 }
#endif
	:: atomic { next > 1 -> n = 1;                                                         /* gives up */
		do :: n < next - 1 -> n++ :: break od;
		if :: !(done & BIT(n)) -> done = done | BIT(n); gone = gone | BIT(n) :: else fi; n = 0 }
	od
}
active proctype owner() {
	do
#ifdef INBOX
	:: atomic { mem.in < nl && nq < P ->
		n_ = le[mem.in + 1].n; m_ = le[mem.in + 1].m; t_ = le[mem.in + 1].at;
		if :: n_ -> turn(mem.in + 1) :: else -> if :: t_ < mem.at -> t_ = mem.at :: else fi; answer(mem.in + 1, 0); t_ = 0 fi }
#else
	:: atomic { nq < P && others < OTHERS -> others++;                                     /* of another client */
		if :: t_ = mem.at :: mem.at < 1 -> t_ = 1 :: mem.at < TM -> t_ = TM fi;
		q[nq].at = t_; nq++; mem.at = t_; t_ = 0 }
	:: atomic { nq < P && next > 1 ->                                                      /* any copy */
		n_ = 1;
		do :: n_ < next - 1 -> n_++ :: break od;
		m_ = 1;
		do :: m_ < NR -> m_++ :: break od;
		if :: t_ = 0 :: t_ = 1 :: t_ = TM fi;
		if :: cp[n_] & BIT(m_) -> turn(0) :: else fi;
		n_ = 0; m_ = 0; t_ = 0 }
#endif
	:: atomic { nq -> stored();                                                            /* acknowledged: the gate opens */
		if :: q[0].n -> tell(q[0].n) :: else fi; pop() }
	:: atomic { sr.in != jr.in || sr.m != jr.m || sr.ans != jr.ans || sr.dl != jr.dl || sr.m != mem.m ->                          /* the store is written */
		copy(sr, jr);
#ifdef FORGET_BY_CLOCK                                                                         /* which is ahead */
		forget(sr, TM);
#else
		forget(sr, jr.at);
#endif
#ifdef INBOX
#ifdef MARK_BEFORE_ITS_COMMIT
		if :: mem.m > sr.m && sr.dl -> sr.m = mem.m; sr.ans = sr.ans & ~(BIT(sr.m) - 1) :: else fi
#endif
#else                                                                                          /* of calls a mark is true whatever becomes of its commit */
		if :: mem.m > sr.m && sr.dl -> sr.m = mem.m; sr.ans = sr.ans & ~(BIT(sr.m) - 1) :: else fi
#endif
	   }
	:: atomic { ends < ENDS && (nq || mem.m != sr.m || mem.ans != sr.ans) -> ends++;     /* the epoch ends; another one replays */
		do
		:: nq -> stored(); pop()
		:: break
		od;
		do :: nq -> pop() :: else -> break od;
		if :: copy(mem, jr) :: copy(mem, sr) fi }
	od
}
