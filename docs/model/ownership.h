/* Sizes of ownership.pml; every one can be set with -D. */
#ifndef N
#define N 2              /* workers */
#endif
#ifndef W
#define W 2              /* window: records in flight */
#endif
#ifndef T
#define T 3              /* epoch batches that may be sent */
#endif
#ifndef R
#define R 3              /* records per epoch */
#endif
#ifndef V
#define V 2              /* writes in all */
#endif
#ifndef RENEWALS
#define RENEWALS 0
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef FOREIGN
#define FOREIGN 0        /* messages of somebody else in the stream */
#endif
#ifndef STOPS
#define STOPS 0          /* clean stops: the holder closes its own lease */
#endif
#ifndef CUTS
#define CUTS 0           /* connections that end while the worker does not know; with it, workers probe each other */
#endif
#ifndef LAPSES
#define LAPSES 99        /* times that trust ends by itself, or an answer is given up: budgeted only for LIVE */
#endif
#ifndef DEATHS
#define DEATHS 0         /* workers that die for good */
#endif
#ifdef FENCE_ONE
#define FILL 0
#else
#define FILL W
#endif
#if LAPSES < 99
#define LAPSE lapses++
#else
#define LAPSE skip
#endif

#define ALIVE(w) (linc[w] && !lcl[w])
#ifdef LIVE              /* the share: the highest worker that has a lease */
#define HIGHER(w) ((w < N - 1 && ALIVE(N - 1)) || (w < N - 2 && ALIVE(N - 2)))
/* whom the last epoch names, while that incarnation lives and has not released, begins again whatever the share says */
#define BOUND(w) (X(ep) == w && b[ep].inc == k[w].inc && rel == 0 && !FLIES(ep))
#define MAY(w) (!HIGHER(w) || BOUND(w))
#define HANDOVER(w) HIGHER(w)
#define HEIR(w) (ALIVE(N - 1) -> N - 1 : N - 2)
#define RENEW(w) (!k[w].trust)
#define SLOW(x) (k[x].inc != linc[x] || lapses < LAPSES)
#define INCS 9
#else
#define MAY(w) 1
#define HANDOVER(w) 1
#define HEIR(w) ((w + 1) % N)
#define RENEW(w) (renewals < RENEWALS)
#define SLOW(x) 1
#define INCS 2           /* incarnations of one worker */
#endif
#define FLIES(e) (b[e].st == FLY || b[e].rel || b[e].rec[0] == FLY || b[e].rec[1] == FLY || b[e].rec[2] == FLY)

#define FLY 1            /* sent: may still arrive */
#define OKAY 2           /* stored, answer under way */
#define NO 3             /* refused, answer under way */
#define KOK 4            /* answer "stored" arrived */
#define KNO 5            /* answer "refused" arrived */
#define IDLE 0
#define SENT 1           /* epoch batch sent */
#define ACTIVE 2
#define LEAVING 3        /* only in RELEASE_KEEPS_READING */
