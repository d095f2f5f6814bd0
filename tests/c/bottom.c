/* The library behind the middle one. */
int tick(void)
{
    return 1;
}
