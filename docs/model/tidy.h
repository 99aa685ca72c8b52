#ifdef EPOCH_NO_CAS
#define EXPIRED
#else
#define EXPIRED || (b[e_].st == FLY && b[e_].exp != AT)
#endif
#ifdef RELEASE_NO_CAS
#define TOO_LATE(e) 0
#else
#define TOO_LATE(e) (e != ep || rel)
#endif
/* Forget what can no longer matter (fewer states): answers nobody waits for, messages that are refused for ever. */
inline tidy() {
	e_ = 1;
	do
	:: e_ <= nt && k[b[e_].own].tok != e_ -> x_ = 0; i_ = 0;
		if :: b[e_].st > FLY EXPIRED -> b[e_].st = 0 :: else fi;
		if :: TOO_LATE(e_) -> b[e_].rel = 0 :: else fi;
		do
		:: i_ < R ->
			if :: b[e_].rec[i_] > FLY || (b[e_].rec[i_] == FLY && b[e_].base + i_ < last) -> b[e_].rec[i_] = 0 :: else fi;
			if :: b[e_].rec[i_] -> x_ = 1 :: else fi; i_++
		:: else -> break
		od;
		if :: !x_ && !b[e_].st && !b[e_].rel -> b[e_].base = 0; b[e_].ver = 0; b[e_].exp = 0;
			if :: e_ != ep -> b[e_].own = 0; b[e_].inc = 0 :: else fi
		:: else fi;
		e_++
	:: e_ <= nt && k[b[e_].own].tok == e_ -> e_++
	:: else -> break
	od;
	e_ = 0; i_ = 0; x_ = 0
}
