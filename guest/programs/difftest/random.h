/*
 * Random numbers for whoever makes operations.
 */
#ifndef RANDOM_H
#define RANDOM_H

#include "difftest.h"

struct random {
    uint64_t state;
};

static inline uint64_t next_random(struct random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* A number below `limit`. */
static inline unsigned below(struct random *random, unsigned limit)
{
    return (next_random(random) >> 32) * limit >> 32;
}

static inline bool percent(struct random *random, unsigned chance)
{
    return below(random, 100) < chance;
}

static inline int one_of(struct random *random, const int *choices, unsigned count)
{
    return choices[below(random, count)];
}

#define ONE_OF(random, choices) one_of(random, choices, LENGTH(choices))

#endif
