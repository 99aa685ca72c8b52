/* A stream, or the bucket, that comes back shorter, and who sees it before anything is served (engine/witness.go,
 * knowledge.go). ONE partition; leases are left out: any worker may try to begin an epoch at any time.
 *
 * L1 told      what the key, or what a worker remembers, shows to be lost is not served over: no answer by an epoch that was
 *              looked for after the loss, by anyone if the key knows, by that worker if it alone does, until a person accepts it
 * L2 once      no position that was acknowledged gets another message that is acknowledged
 * L3 fence     a stored record belongs to the last epoch before it
 * L2 and L3 are not promised when more was lost than the key knew (up to a second of appends: design.md, "Where the
 * code does less"); -DGAP promises them all the same, and is refuted.
 */
#ifndef W
#define W 2              /* fillers; in flight is one append of each worker */
#endif
#ifndef T
#define T 3              /* epochs */
#endif
#ifndef V
#define V 2              /* records */
#endif
#ifndef LOSSES
#define LOSSES 1         /* times that the stream loses its end */
#endif
#ifndef BACKS
#define BACKS 0          /* times that the bucket loses its last write */
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef ACCEPTS
#define ACCEPTS 1
#endif
#define N 2
#define S 28             /* positions */
#define FILLER 255
#define IDLE 0
#define LOOKED 1
#define FENCED 2         /* its epoch record is acknowledged */
#define ACTIVE 3
hidden byte L1, L2, L3;  /* always 0: they name what an assertion is about */
/* the stream: what is at each position (epoch t: t * 16; its n-th record: t * 16 + n), where it ends, and its last epoch's position */
byte s[S], last, eat;
/* the key part.<p>: epoch, its position, highest acknowledged, life, alarm (what is known), revision; and as it was before */
typedef Key { byte tok, at, ack, life, alarm, rev };
Key key, was;
/* workers. hi: the last acknowledged; fl, fexp: what is in flight, and the last sequence that it expects; lat, ltok, lrev: the last epoch and the key, as it looked.
 * What it remembers: klife, ktok, kat, kseq */
typedef Worker { byte phase, tok, at, hi, n, life, lat, ltok, lrev, fl, fexp, klife, ktok, kat, kseq };
Worker k[N];
byte nt, nr, losses, backs, crashes, accepts;
/* ghosts: what was acknowledged where; the end after a loss that nobody accepted; whether more was lost than the key knew; whether the
 * key knows; whether worker w remembers; whether w's epoch was there before the loss */
byte g[S], cut = 255; bit unknown, keyKnows, wasKnows, mine[N], before[N];
byte i_, have_; bit ok_;

#define TOK(m) (m / 16)
inline put(ntok, nat, nack, nlife, nalarm) {
	was.tok = key.tok; was.at = key.at; was.ack = key.ack; was.life = key.life; was.alarm = key.alarm; was.rev = key.rev; wasKnows = keyKnows;
	key.tok = ntok; key.at = nat; key.ack = nack; key.life = nlife; key.alarm = nalarm; key.rev++
}
inline know(w) {         /* what the worker remembers of its epoch */
	k[w].klife = k[w].life; k[w].ktok = k[w].tok; k[w].kat = k[w].at; k[w].kseq = k[w].hi
}
inline told() {          /* the key knows now; whoever serves already hears of it within a second */
	keyKnows = 1; before[0] = before[0] || k[0].phase == ACTIVE; before[1] = before[1] || k[1].phase == ACTIVE
}
inline over(w) {
	if :: k[w].phase == ACTIVE -> know(w) :: else fi;
	k[w].phase = IDLE; k[w].tok = 0; k[w].at = 0; k[w].hi = 0; k[w].n = 0; k[w].life = 0; k[w].lat = 0; before[w] = 0;
	k[w].ltok = 0; k[w].lrev = 0
}
/* How far the stream can be what it was when it went to seq under the epoch that began at pos: held in knowledge.go */
inline held(etok, pos, seq) {
	have_ = seq;
	if
	:: last < seq -> have_ = last
	:: else ->
		if
		:: s[pos] != etok * 16 -> have_ = pos - 1
		:: else ->
			i_ = pos + 1;
			do
			:: i_ <= last && s[i_] != FILLER && s[i_] % 16 == 0 ->       /* the next epoch */
				if :: i_ - 1 < seq -> have_ = i_ - 1 :: else fi; break
			:: i_ <= last && !(s[i_] != FILLER && s[i_] % 16 == 0) -> i_++
			:: else -> break
			od
		fi
	fi; i_ = 0
}
inline fits() {          /* before the fence: the key against the stream's length, and its epoch */
	ok_ = 1;
#ifndef KEY_NOT_COMPARED
	if
	:: key.alarm -> ok_ = 0
	:: else ->
		if :: key.ack > last -> ok_ = 0 :: else fi;
		if :: key.at && (eat < key.at || s[key.at] != key.tok * 16) -> ok_ = 0 :: else fi
	fi
#endif
}
inline fitsFenced(w) {   /* after it: the key against where the epochs begin. The key has the alarm then, unless the worker ends first */
	ok_ = !key.alarm;
#ifndef FENCED_BY_LENGTH
	if
	:: ok_ && key.at -> held(key.tok, key.at, key.ack); if :: have_ < key.ack -> ok_ = 0 :: else fi; have_ = 0
	:: ok_ && !key.at && k[w].at <= key.ack -> ok_ = 0
	:: else
	fi;
	if :: !ok_ && !key.alarm -> if :: put(key.tok, key.at, key.ack, key.life, key.ack); told() :: skip fi :: else fi
#else
	if :: ok_ -> fits() :: else fi
#endif
}
inline findEpoch() {
	eat = last;
	do
	:: eat > 0 && (s[eat] == FILLER || s[eat] % 16) -> eat--
	:: else -> break
	od
}
inline remembers() {     /* what the worker remembers against the stream; the key has the alarm then */
#ifndef OWN_NOT_COMPARED
	if
	:: k[w].kseq && k[w].klife >= key.life && !key.alarm ->
		held(k[w].ktok, k[w].kat, k[w].kseq);
		if :: have_ < k[w].kseq -> ok_ = 0; put(key.tok, key.at, key.ack, key.life, k[w].kseq); told() :: else fi; have_ = 0
	:: else
	fi
#else
	skip
#endif
}
proctype worker(byte w) {
	do
	/* ---- begin an epoch: look and compare, fence, write the key, serve ---- */
	:: atomic { k[w].phase == IDLE && nt < T ->
		ok_ = 1; remembers();
		if :: ok_ -> fits() :: else fi;
		if
		:: ok_ -> k[w].phase = LOOKED; k[w].lat = eat; k[w].life = key.life;
			k[w].ltok = key.tok; k[w].lrev = key.rev
		:: else
		fi; ok_ = 0 }
	:: atomic { k[w].phase == LOOKED ->
		if
		:: eat == k[w].lat && last + 1 + W < S && nt < T ->
			nt++; last++; s[last] = nt * 16; eat = last; k[w].tok = nt; k[w].at = last;
			do :: last < k[w].at + W -> last++; s[last] = FILLER :: else -> break od;
			k[w].hi = last; k[w].phase = FENCED; k[w].lat = 0
		:: else -> over(w)
		fi }
	:: atomic { k[w].phase == LOOKED -> over(w) }                /* it gave up, or was refused */
	:: atomic { k[w].phase == FENCED ->                          /* takeWitness */
		ok_ = 1;
		if
		:: key.rev != k[w].lrev && !(key.tok == k[w].ltok && key.life == k[w].life && !key.alarm && key.ack < k[w].at) -> ok_ = 0
		:: else ->
#ifndef TAKE_UNCHECKED
			fitsFenced(w);                                   /* compared again, since the stream may have gone back since */
			if :: ok_ -> remembers() :: else fi
#endif
		fi;
		if
		:: ok_ && s[k[w].at] == k[w].tok * 16 && eat == k[w].at ->       /* and readHistory */
			put(k[w].tok, k[w].at, k[w].hi, k[w].life, 0);
			k[w].phase = ACTIVE; k[w].ltok = 0; k[w].lrev = 0
		:: else -> over(w)
		fi; ok_ = 0 }
	/* ---- serve ---- */
	:: atomic { k[w].phase == ACTIVE && !k[w].fl && nr < V ->
		nr++; k[w].n++; k[w].fl = k[w].tok * 16 + k[w].n; k[w].fexp = k[w].hi }
	:: atomic { k[w].phase == ACTIVE ->                          /* an answer */
		assert(L1 || before[w] || (!keyKnows && !mine[w])) }
	:: atomic { k[w].phase == ACTIVE && (k[w].hi != k[w].kseq || k[w].ktok != k[w].tok || key.tok != k[w].tok ||
			key.ack < k[w].hi || key.alarm || s[k[w].at] != k[w].tok * 16) ->  /* each second */
		know(w);
		if
		:: key.tok != k[w].tok || key.life != k[w].life || key.alarm -> over(w)
		:: else ->
			if
			:: key.ack < k[w].hi -> put(key.tok, key.at, k[w].hi, key.life, 0);
				if :: mine[w] && key.ack > cut -> told() :: else fi
			:: else -> if :: s[k[w].at] != k[w].tok * 16 -> over(w) :: else fi
			fi
		fi }
	:: atomic { k[w].phase == ACTIVE -> over(w) }                 /* the lease, the connection, a refusal */
	:: atomic { crashes < CRASHES && (k[w].phase || k[w].kseq) -> crashes++;
		if :: k[w].phase == ACTIVE -> k[w].phase = FENCED :: else fi; over(w);
		if :: skip :: k[w].klife = 0; k[w].ktok = 0; k[w].kat = 0; k[w].kseq = 0 fi;      /* the store has it, or not */
		mine[w] = mine[w] && k[w].kseq > cut }
	od
}
inline append() {        /* what is in flight arrives, however late, and is answered */
	if
	:: last == k[w].fexp && last < S - 1 ->
		last++; s[last] = k[w].fl;
#ifndef GAP
		if :: !unknown ->
#else
		if :: true ->
#endif
			assert(L3 || s[eat] == TOK(k[w].fl) * 16);
			assert(L2 || g[last] == 0 || g[last] == k[w].fl)
		:: else
		fi;
		if
		:: k[w].phase == ACTIVE && k[w].tok == TOK(k[w].fl) -> k[w].hi = last; g[last] = k[w].fl
		:: else
		fi
	:: else -> if :: k[w].phase == ACTIVE && k[w].tok == TOK(k[w].fl) -> over(w) :: else fi
	fi;
	k[w].fl = 0; k[w].fexp = 0
}
proctype world() {
	byte w;
	do
	:: atomic { k[0].fl -> w = 0; append(); w = 0 }
	:: atomic { k[1].fl -> w = 1; append(); w = 0 }
	:: atomic { losses < LOSSES && last > 1 -> losses++;
		s[last] = 0; last--;
		do
		:: last > 0 -> s[last] = 0; last--
		:: break
		od;
		findEpoch();
		if :: last < cut -> cut = last :: else fi;
		keyKnows = keyKnows || key.ack > cut || key.alarm; wasKnows = wasKnows || was.ack > cut || was.alarm;
		do
		:: w < N ->
			if :: k[w].kseq > cut && k[w].klife >= key.life -> mine[w] = 1 :: else fi;
			if :: k[w].phase == ACTIVE && k[w].hi > cut -> mine[w] = 1; if :: k[w].hi > key.ack -> unknown = 1 :: else fi
			:: k[w].phase == LOOKED || k[w].phase == FENCED -> unknown = 1
			:: else
			fi;
			if :: k[w].kseq > cut && k[w].kseq > key.ack -> unknown = 1 :: else fi;
			if :: k[w].fl && k[w].fexp > cut && k[w].fexp > key.ack -> unknown = 1 :: else fi;
			before[w] = before[w] || k[w].phase >= FENCED;
			w++
		:: else -> break
		od; w = 0 }
	:: atomic { backs < BACKS && was.rev < key.rev -> backs++;    /* the bucket loses its last write */
		if :: key.ack > was.ack -> unknown = 1 :: else fi;
		key.tok = was.tok; key.at = was.at; key.ack = was.ack; key.life = was.life; key.alarm = was.alarm; key.rev = was.rev;
		keyKnows = wasKnows }
	:: atomic { accepts < ACCEPTS ->
		fits();
		if
		:: !ok_ -> accepts++;
			i_ = key.ack;
			if :: key.at && key.at + W > i_ -> i_ = key.at + W :: else fi;
			if :: key.alarm > i_ -> i_ = key.alarm :: else fi;
#ifndef ACCEPT_WITHOUT_LIFTING
			do :: last <= i_ + W && last < S - 1 -> last++; s[last] = FILLER :: else -> break od;
#endif
			put(key.tok, 0, last, key.life + 1, 0);
			i_ = 0; cut = 255; keyKnows = 0; wasKnows = 0; mine[0] = 0; mine[1] = 0
		:: else
		fi; ok_ = 0 }
	od
}
init { atomic {          /* worker 0 serves epoch 1 */
	nt = 1; last = 1 + W; s[1] = 16; s[2] = FILLER; s[3] = FILLER; eat = 1;
	k[0].phase = ACTIVE; k[0].tok = 1; k[0].at = 1; k[0].hi = 1 + W;
	key.tok = 1; key.at = 1; key.ack = 1 + W; key.rev = 1;
	run worker(0); run worker(1); run world()
} }
