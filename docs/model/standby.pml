/* A standby beside the epochs of its own worker: both write an object's states into the one store of the worker (engine/standby.go,
 * claim.enter, takeCopy, giveCopy; Worker.own). ONE partition, one object.
 *
 * S1 one writer   the follower and an epoch never write the store at one time
 * S2 whole        what the store has is a state: every change up to the version that it names
 * S3 ready        an epoch that serves has no follower beside it
 */
#ifndef V
#define V 4              /* commits in the journal */
#endif
#ifndef EPOCHS
#define EPOCHS 2         /* epochs of this worker */
#endif
#ifndef FOLLOWS
#define FOLLOWS 2        /* followers */
#endif
hidden byte S1, S2, S3;  /* always 0: they name what an assertion is about */
#define ALL(v) ((1 << (v)) - 1)
byte journal;            /* versions; the changes of version v are bit v - 1 */
byte has, version;       /* the store: the changes that it has, the version that it names */
byte writers;
bit next = 1, taken, finish, serving, broken;   /* the claim; broken: a write failed, and the worker goes down */
byte followers, epochs;
bit follower;            /* one is there */

/* What is in memory and not in the store is written by one batch, which counts as written from when it is made. */
inline begin(base, mem, lo, hi) { lo = base; hi = mem; base = mem; writers++; assert(S1 || writers == 1) }
inline end(lo, hi) {
	if
	:: has = has | (ALL(hi) & ~ALL(lo)); version = hi;
		assert(S2 || has == ALL(version))
	:: !broken -> broken = 1                                   /* it fails, with all of it */
	fi;
	writers--; lo = 0; hi = 0
}
active proctype standby() {
	byte base, mem, lo, hi;
	bit stop;
	do
	:: atomic { next && !broken && followers < FOLLOWS &&       /* claim.enter */
#ifndef ENTER_WHILE_TAKEN
		!taken &&
#endif
		true -> followers++; follower = 1; base = version; mem = version; stop = 0 }
	   do
	   :: atomic { mem < journal && !stop -> mem++ }              /* the next record */
	   :: atomic { mem > base && !stop && !broken -> begin(base, mem, lo, hi) }
	      atomic { end(lo, hi) }
	   :: atomic { finish || !next || broken -> stop = 1; break } /* asked for by takeCopy, or the share, or a write has failed */
	   od;
	   if
#ifndef FLUSH_AFTER_FAILURE
	   :: atomic { mem > base && !broken -> begin(base, mem, lo, hi) }
#else
	   :: atomic { mem > base -> begin(base, mem, lo, hi) }
#endif
	      atomic { end(lo, hi) }
	   :: atomic { else -> skip }
	   fi;
	   atomic { follower = 0; base = 0; mem = 0; stop = 0; finish = 0 }
	od
}
active proctype owner() {
	byte base, mem, lo, hi;
	do
	:: atomic { epochs < EPOCHS && !broken -> epochs++ }          /* its record is acknowledged */
#ifndef SERVE_BEFORE_TAKE
	   atomic { taken = 1; if :: follower -> finish = 1 :: else fi } /* takeCopy */
#ifndef TAKE_WITHOUT_WAIT
	   atomic { !follower -> skip }
#endif
#endif
	   atomic { serving = 1; base = version; mem = journal; assert(S3 || !follower) }  /* wakes the object: the store, and what is behind it */
	   do
	   :: atomic { journal < V -> journal++; mem++ }
	   :: atomic { mem > base && !broken -> begin(base, mem, lo, hi) }
	      if                                                         /* the epoch may end meanwhile */
	      :: atomic { end(lo, hi) }
	      :: atomic { serving = 0;
#ifdef GIVE_BEFORE_WRITTEN
		taken = 0
#endif
		}
	         atomic { end(lo, hi); break }                            /* waitWritten */
	      fi
	   :: atomic { serving = 0; break }
	   od;
	   atomic { taken = 0; base = 0; mem = 0 }                       /* giveCopy */
	od
}
active proctype world() {
	do
	:: atomic { journal < V && !serving -> journal++ }             /* another owner */
	:: atomic { next = !next }                                     /* the share */
	od
}
